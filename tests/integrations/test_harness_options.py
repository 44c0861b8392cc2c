"""Arguments of the harness are sorted into our sections, and its generation options read."""

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.common.registry import generators
from lavis.integrations.harness_options import (
    GenerationOptions,
    Options,
    batch_rows,
    is_usable,
    whole_number,
)


def test_keys_go_to_their_sections():
    given = {
        "mix": "logits",
        "vision.width": 4,
        "vision.name": None,
        "scorer": None,
        "options.root": "x",
    }
    chosen = Options.of("gpt2", None, "folder", 3, 64, given)
    assert (chosen.model.llm, chosen.model.num_images, chosen.model.mix) == ("gpt2", 3, "logits")
    assert (chosen.images.generator, chosen.images.num_images) == ("folder", 3)
    assert chosen.images.options == {"root": "x"} and chosen.processor.image_size == 64
    text = Options.of("gpt2", None, None, None, None, {})
    assert text.images is None and (text.model.num_images, text.model.vision.name) == (0, None)


def test_images_are_weighed_as_it_is_said():
    chosen = Options.of("gpt2", None, "folder", 2, None, {"scorer": None})
    assert chosen.images.scorer is None and chosen.model.num_images == 2


def test_an_unknown_key_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--model_args: unknown key 'mixx'; did you mean 'mix'"):
        Options.of("gpt2", None, None, None, None, {"mixx": "logits"})


def test_whole_numbers_as_they_are_typed():
    assert [whole_number("n", value) for value in (3, "3", 3.0)] == [3, 3, 3]
    for value in (True, "x", 2.5, 0, None, float("inf")):
        with pytest.raises(ConfigError, match="use a whole number of 1 or more"):
            whole_number("n", value)
    assert [batch_rows(*given) for given in (("auto", None), ("auto:4", 8), (2, 8))] == [16, 8, 2]


def test_a_device_is_used_where_the_machine_has_it():
    assert is_usable("cpu") and not is_usable(None) and not is_usable("cuda")
    assert is_usable("cuda:0") == torch.cuda.is_available()


def test_generation_options_of_every_spelling():
    options = GenerationOptions.of({"until": "\n", "max_new_tokens": "7", "num_beams": 2}, 256)
    assert options == GenerationOptions(("\n",), 7, 2, 1.0)
    assert GenerationOptions.of({"until": ["a", "b"]}, 256) == GenerationOptions(("a", "b"), 256)
    assert GenerationOptions.of({"max_gen_toks": 0}, 256).max_gen_toks == 0


def test_a_generator_of_a_plug_in_names_the_argument_that_imports_it(monkeypatch):
    for table in ("_extensions", "_classes"):  # as in a process that has not imported it
        monkeypatch.setattr(generators, table, {})
    with pytest.raises(ConfigError, match=r"; add import_modules=projects\.quickstart "):
        Options.of("gpt2", None, "openmoji", 2, None, {})
