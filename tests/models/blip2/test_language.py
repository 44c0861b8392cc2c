"""Language models behind BLIP-2: precision, tokens of inputs and outputs, padding."""

import pytest
import torch

from lavis.common.dist import building_for
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.blip2.generative import Blip2OPT, Blip2T5
from lavis.models.blip2.language import input_ids, load_padding_tokenizer, output_ids, pad


def test_the_device_of_the_run_decides_the_precision_not_the_machines(build, monkeypatch):
    def dtype():
        return next(build("opt").language_model.parameters()).dtype

    assert dtype() == torch.float32
    with building_for(torch.device("cuda")):
        assert dtype() == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with building_for(torch.device("cpu")):
        assert dtype() == torch.float32
    with building_for(torch.device("cuda")):
        half = build("opt", llm_precision="fp16").language_model
    assert next(half.parameters()).dtype == torch.float16
    assert dtype() == torch.bfloat16  # nobody says where it will run: on the GPU that is there


def test_outputs_follow_their_inputs_and_end(language_models):
    tokenizer = load_padding_tokenizer(language_models["gpt2"], key="llm_model")
    assert tokenizer.pad_token is not None
    before = input_ids(tokenizer, "the dog", 10)
    after = output_ids(tokenizer, "the dog", "is near", 10)
    assert after[-1] == tokenizer.eos_token_id and before[-1] != after[-1]
    assert before + after[:-1] == input_ids(tokenizer, "the dog is near", 10)
    assert output_ids(tokenizer, "the dog", "is near", 1) == after[:1]  # cut, without its end
    assert input_ids(tokenizer, "the dog", 1) == before[:1]


def test_rows_are_padded_to_the_longest():
    ids, mask = pad([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_an_unknown_language_model_is_named(tiny_sizes, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.t5_model: cannot load"):
        Blip2T5(models.config_class("blip2_t5")(**tiny_sizes, t5_model=str(tmp_path)))
    assert Blip2OPT.projection == "opt_proj"
