"""Text states: equal to a direct call, whatever the batch; each text once; resumed after a kill."""

from __future__ import annotations

import pickle

import pytest
import torch
from transformers import AutoConfig

from lavis.common.dist import World
from lavis.common.errors import ConfigError, DataError
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from lavis.tasks.language_modeling import states as text_states
from lavis.tasks.language_modeling.states import TextStates

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
    "initializer_range": 0.4, "head_dim": 8, "bos_token_id": 2,
}  # fmt: skip
LENGTHS = (7, 3, 12, 1, 5, 3)


def make_model(folder, kind="llama", dtype="fp32"):
    AutoConfig.for_model(kind, **SIZES).save_pretrained(folder)
    torch.manual_seed(0)
    config = LateFusionConfig(
        llm=str(folder),
        llm_weights="config",
        llm_dtype=dtype,
        vision=VisionConfig(name=None, width=8),
    )
    return LateFusion.from_config(config).eval()


def make_lists(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(3, 61, (n,), generator=draw).tolist()) for n in LENGTHS]


def world(rank=0, size=1):
    return World(rank, size, torch.device("cpu"))


class Counting:
    """A model that notes which texts it encodes, and may be killed."""

    def __init__(self, model, limit=10**9):
        self.model, self.limit, self.texts = model, limit, []

    def encode_text(self, ids, mask):
        if len(self.texts) >= self.limit:
            raise KeyboardInterrupt
        self.texts += [tuple(row[m].tolist()) for row, m in zip(ids, mask.bool(), strict=True)]
        return self.model.encode_text(ids, mask)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma", "opt", "bert"])
def test_states_equal_a_direct_call_whatever_the_batch(tmp_path, kind):
    model = make_model(tmp_path / "llm", kind)
    lists = make_lists()
    for batch_size in (1, 4):
        states = TextStates.of(model, tmp_path / str(batch_size))
        states.fill(model, lists, world=world(), batch_size=batch_size)
        assert len(states) == len(set(lists))
        for tokens in lists:
            alone = model.encode_text(torch.tensor([tokens])).hidden[0]
            torch.testing.assert_close(states.get(tokens), alone, atol=2e-5, rtol=1e-4)


def test_a_batch_is_padded_with_zeros_on_either_side(tmp_path):
    model = make_model(tmp_path / "llm")
    lists = [*make_lists()[:3], ()]
    states = TextStates.of(model, tmp_path / "states")
    states.fill(model, lists, world=world(), batch_size=2)
    for copy in (states, pickle.loads(pickle.dumps(states))):
        right, left = copy.batch(lists), copy.batch(lists, "left", 14)
        assert right.shape == (4, 12, 32) and left.shape == (4, 14, 32)
        for row, tokens in enumerate(lists):
            own = copy.get(tokens)
            torch.testing.assert_close(right[row, : len(tokens)], own, atol=0, rtol=0)
            torch.testing.assert_close(left[row, 14 - len(tokens) :], own, atol=0, rtol=0)
            assert not right[row, len(tokens) :].any() and not left[row, : 14 - len(tokens)].any()
    right += 1  # a batch is the caller's
    assert not torch.equal(right, states.batch(lists))
    with pytest.raises(DataError, match="a text of 2 tokens has no states"):
        states.batch([(9, 9)])
    with pytest.raises(DataError, match="12 tokens does not fit into 4 rows"):
        states.batch(lists, length=4)
    assert states.get((9, 9)) is None


def test_samples_with_states_have_the_loss_of_samples_without(tmp_path):
    """Also where a start token gives its place to the images (gemma)."""
    model = make_model(tmp_path / "llm", "gemma")
    lists = [(2, *tokens) for tokens in make_lists()[:3]]
    states = TextStates.of(model, tmp_path / "states")
    states.fill(model, lists, world=world(), batch_size=2)
    ids, mask = text_states._padded(lists)
    samples = {"input_ids": ids, "attention_mask": mask, "vision_features": torch.randn(3, 5, 8)}
    samples["labels"] = ids.masked_fill(mask == 0, -100)
    plain = model(samples)["loss"]
    cached = model({**samples, "text_hidden": states.batch(lists)})["loss"]
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)


def test_equal_texts_are_encoded_once_also_across_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(text_states, "WINDOW", 3)
    model = Counting(make_model(tmp_path / "llm"))
    lists = [*make_lists(), *make_lists(), ()]
    states = TextStates.of(model.model, tmp_path / "states")
    states.fill(model, iter(lists), world=world(), batch_size=2)
    assert sorted(model.texts) == sorted(set(lists) - {()})
    states.fill(model, lists, world=world(), batch_size=2)
    TextStates.of(model.model, tmp_path / "states").fill(model, lists, world=world(), batch_size=2)
    assert len(model.texts) == len(set(lists)) - 1


def test_a_fill_that_is_stopped_goes_on(tmp_path):
    tiny = make_model(tmp_path / "llm")
    lists = make_lists()
    stopped = Counting(tiny, limit=3)
    first = TextStates.of(tiny, tmp_path / "states")
    with pytest.raises(KeyboardInterrupt):
        first.fill(stopped, lists, world=world(), batch_size=1)
    rest = Counting(tiny)
    states = TextStates.of(tiny, tmp_path / "states")
    assert len(states) == 3
    states.fill(rest, lists, world=world(), batch_size=1)
    assert sorted(stopped.texts + rest.texts) == sorted(set(lists))
    assert states.batch(lists).shape == (6, 12, 32)


def test_processes_share_the_work(tmp_path):
    tiny = make_model(tmp_path / "llm")
    lists = make_lists() + make_lists(1) + make_lists(2)
    models = [Counting(tiny), Counting(tiny)]
    for rank, model in enumerate(models):
        states = TextStates.of(tiny, tmp_path / "states")
        states.fill(model, lists, world=world(rank, 2), batch_size=4)
    assert all(model.texts for model in models)
    assert sorted(models[0].texts + models[1].texts) == sorted(set(lists))
    assert states.batch(lists).shape == (18, 12, 32)


@pytest.mark.parametrize(("dtype", "kept"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_states_are_kept_in_the_language_models_own_type(tmp_path, dtype, kept):
    model = make_model(tmp_path / "llm", dtype=dtype)
    lists = make_lists()[:2]
    states = TextStates.of(model, tmp_path / "states")
    states.fill(model, lists, world=world(), batch_size=1)
    assert states.dtype == states.batch(lists).dtype == kept
    alone = model.encode_text(torch.tensor([lists[0]])).hidden[0]
    torch.testing.assert_close(states.get(lists[0]), alone, atol=0, rtol=0)


def test_models_keep_their_states_apart(tmp_path):
    lists = make_lists()[:1]
    for kind in ("llama", "opt"):
        model = make_model(tmp_path / kind, kind)
        states = TextStates.of(model, tmp_path / "states")
        assert len(states) == 0
        states.fill(model, lists, world=world(), batch_size=1)
    assert len(list((tmp_path / "states").iterdir())) == 2
    with pytest.raises(ConfigError, match="text states of type"):
        TextStates(tmp_path, "x", 4, torch.float64)
