"""The library's cache under either of its names, and that the fast path is taken."""

import inspect
import logging
import warnings

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.models.late_fusion import cache as caches
from lavis.models.late_fusion.cache import cache_argument, why_no_branches
from lavis.models.late_fusion.language import LanguageModel

BEGINNING, RESTS = 9, ([30], [31, 32, 33], [34, 35])


class Renamed(torch.nn.Module):
    """A base model that takes its cache under one name only, whatever transformers is installed."""

    def __init__(self, base, name):
        super().__init__()
        self.inner, self.config, self.name = base, base.config, name
        self.lengths = []
        own = cache_argument(base, base.config)
        if name == "cache":
            self.forward = lambda input_ids, attention_mask, position_ids, use_cache, cache=None: (
                self.run(own, cache, input_ids, attention_mask, position_ids, use_cache)
            )
        else:
            self.forward = (
                lambda input_ids, attention_mask, position_ids, use_cache, past_key_values=None: (
                    self.run(
                        own, past_key_values, input_ids, attention_mask, position_ids, use_cache
                    )
                )
            )

    def run(self, own, given, ids, mask, positions, use_cache):
        self.lengths.append(ids.numel())
        more = {} if given is None else {own: given}
        return self.inner(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=use_cache,
            **more,
        )


def branches_of(model):
    """Return three texts with one beginning, and how they share it."""
    length = BEGINNING + max(map(len, RESTS))
    ids, mask = torch.zeros(3, length, dtype=torch.long), torch.zeros(3, length, dtype=torch.long)
    for row, rest in enumerate(RESTS):
        text = [*range(5, 5 + BEGINNING), *rest]
        ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
    starts = model.shared_starts(BEGINNING, torch.tensor([0]), torch.tensor([0, 0, 0]))
    return {"input_ids": ids, "attention_mask": mask}, starts


def test_a_shared_beginning_passes_the_base_model_once(make_model, causal, monkeypatch):
    model = make_model(causal)
    sample, starts = branches_of(model)
    tokens, forward = [], type(model.llm.base_model).forward

    def counted(self, *args, **given):
        tokens.append(given["input_ids"].numel())
        return forward(self, *args, **given)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(type(model.llm.base_model), "forward", counted)
    model.encode_text(**sample, starts=starts)
    assert sum(tokens) == BEGINNING + 3 * 3  # not 3 * (BEGINNING + 3)
    tokens.clear()
    model.generate(sample["input_ids"][:1, :BEGINNING], max_new_tokens=4)
    assert tokens == [BEGINNING, 1, 1, 1]


@pytest.mark.parametrize("name", caches.NAMES)
def test_either_name_of_the_cache_gives_the_same(make_model, causal, monkeypatch, name):
    model = make_model(causal)
    sample, starts = branches_of(model)
    expected = model.encode_text(**sample, starts=starts).hidden
    renamed = Renamed(model.llm.base_model, name)
    monkeypatch.setattr(LanguageModel, "base", property(lambda self: renamed))
    monkeypatch.setattr(model, "language", LanguageModel(model.llm))
    assert model.language.branches
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = model.encode_text(**sample, starts=starts).hidden
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert renamed.lengths == [BEGINNING, 9]


def test_our_calls_warn_of_nothing(make_model, kind, texts, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        make_model(kind).predict({**texts(), **images()})


def test_a_cache_under_another_name_is_an_error_and_no_slow_path(make_model):
    model = make_model("llama")

    class Hidden(torch.nn.Module):
        config = model.language.config

        def forward(self, *args, **kwargs):
            raise AssertionError

    with pytest.raises(ConfigError, match="under neither name that is known here, cache or past"):
        cache_argument(Hidden(), Hidden.config)


def test_a_cache_that_stays_empty_is_an_error(make_model, monkeypatch):
    model = make_model("llama")
    sample, starts = branches_of(model)
    base, name = model.llm.base_model, cache_argument(model.llm.base_model, model.llm.config)
    forward = type(base).forward

    def forgetful(self, *args, **given):
        given.pop(name, None)
        return forward(self, *args, **given)

    monkeypatch.setattr(type(base), "forward", forgetful)
    with pytest.raises(ConfigError, match="a 'llama' left its cache empty"):
        model.encode_text(**sample, starts=starts)


def test_families_that_cannot_share_say_so_once(make_model, llm_folder, caplog, monkeypatch):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(llm_folder("llama"))
    assert why_no_branches(config) is None
    config.layer_types = ["full_attention", "linear_attention"]
    assert "linear_attention" in why_no_branches(config)
    model = make_model("llama")
    monkeypatch.setattr(model.llm.config, "layer_types", config.layer_types, raising=False)
    with caplog.at_level(logging.WARNING):
        language = LanguageModel(model.llm)
    assert not language.branches
    (line,) = [record.getMessage() for record in caplog.records]
    assert "this 'llama' cannot share them: layers keep more than keys and values" in line
    sample, starts = branches_of(model)
    whole = model.encode_text(**sample).hidden
    monkeypatch.setattr(model, "language", language)
    torch.testing.assert_close(model.encode_text(**sample, starts=starts).hidden, whole)
