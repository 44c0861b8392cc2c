"""Cached generation equals computing all anew, and the library's where there are no images."""

import copy

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.generation import DecodingOptions, next_log_probs, start
from lavis.models.late_fusion.mixing import Mixing


@pytest.mark.parametrize("lengths", [(9, 6, 3), (20, 1, 2)], ids=["short", "long"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_cached_steps_equal_uncached_ones(make_model, texts, images, causal, side, lengths):
    model, sample, seen = make_model(causal), texts(lengths, side=side, first=2), images()
    options = {**seen, "attention_mask": sample["attention_mask"]}
    states = [
        start(model, sample["input_ids"], DecodingOptions(use_cache=cached, **options))
        for cached in (True, False)
    ]
    for _ in range(5):
        cached, plain = (next_log_probs(model, state) for state in states)
        torch.testing.assert_close(cached, plain, atol=2e-5, rtol=1e-4)
        for state in states:
            state.append(plain.argmax(dim=-1))


def test_a_batch_equals_one_text_at_a_time(make_model, texts, images, causal):
    model, sample, seen = make_model(causal), texts(first=2), images()
    mask = sample["attention_mask"]
    whole = model.generate(sample["input_ids"], attention_mask=mask, max_new_tokens=5, **seen)
    for b in range(3):
        alone = model.generate(
            sample["input_ids"][b : b + 1, : int(mask[b].sum())],
            vision_features=seen["vision_features"],
            image_index=seen["image_index"][b : b + 1],
            scores=seen["scores"][b : b + 1],
            max_new_tokens=5,
        )
        assert alone[0].tolist() == whole[b].tolist()


@pytest.mark.parametrize("beams", [1, 3])
def test_without_images_it_is_the_librarys_generation(make_model, texts, causal, beams):
    model, sample = make_model(causal), texts((6, 6))
    expected = model.llm.generate(
        **sample, max_new_tokens=6, num_beams=beams, do_sample=False, eos_token_id=None
    )
    found = model.generate(sample["input_ids"], max_new_tokens=6, num_beams=beams)
    assert found.tolist() == expected[:, 6:].tolist()


@pytest.mark.parametrize("kind", ["gpt2", "gemma", "gemma3", "opt"])
def test_cached_beams_equal_uncached_ones(make_model, texts, images, kind):
    model, sample, seen = make_model(kind), texts(first=2), images()
    given = {**seen, "attention_mask": sample["attention_mask"], "max_new_tokens": 5}
    found = model.generate(sample["input_ids"], num_beams=3, eos_token_id=[7, 9], **given)
    plain = model.generate(
        sample["input_ids"], num_beams=3, eos_token_id=[7, 9], use_cache=False, **given
    )
    assert found.tolist() == plain.tolist()


def test_beams_find_a_likelier_text_than_greedy_does(make_model, texts, images):
    model, sample, seen = make_model("llama"), texts(), images()

    def likelihood(tokens):
        ids = torch.cat([sample["input_ids"][:, :3], tokens], dim=1)
        positions = torch.arange(2, ids.shape[1] - 1).expand(3, -1)
        given = {"input_ids": ids, "positions": positions, "token_ids": ids[:, 3:, None], **seen}
        return model.predict(given)["log_probs"][..., 0].sum(dim=1)

    prompt = sample["input_ids"][:, :3]
    greedy = model.generate(prompt, max_new_tokens=4, **seen)
    beams = model.generate(prompt, max_new_tokens=4, num_beams=8, **seen)
    assert bool((likelihood(beams) >= likelihood(greedy) - 1e-4).all())


def test_each_way_of_mixing_generates(make_model, texts, images):
    model, sample, seen = make_model("qwen2"), texts(), images()
    made = set()
    for way in (
        Mixing("logits", "clip"),
        Mixing("probs", "clip_relative"),
        Mixing("probs", "entropy"),
        Mixing("logits", "max_confidence"),
        Mixing("probs", "clip", num_images=0),
    ):
        tokens = model.generate(
            sample["input_ids"],
            attention_mask=sample["attention_mask"],
            mixing=way,
            max_new_tokens=4,
            **seen,
        )
        assert tokens.shape == (3, 4)
        made.add(str(tokens.tolist()))
    assert len(made) > 1
    text = model.generate(
        sample["input_ids"], attention_mask=sample["attention_mask"], max_new_tokens=4
    )
    assert tokens.tolist() == text.tolist()


def test_ends_and_stops(make_model, texts):
    model, ids = make_model("llama"), texts((4, 4))["input_ids"]
    free = model.generate(ids, max_new_tokens=6)
    end = int(free[0, 2])
    first = free[0].tolist().index(end)
    ended = model.generate(ids, max_new_tokens=6, eos_token_id=end, pad_token_id=0)
    assert ended[0, : first + 1].tolist() == free[0, : first + 1].tolist()
    assert not ended[0, first + 1 :].any()
    stopped = model.generate(
        ids, max_new_tokens=6, stop=lambda new: torch.tensor([new.shape[1] >= 2] * len(new))
    )
    assert stopped.tolist() == free[:, :2].tolist()
    assert model.generate(ids, max_new_tokens=0).shape == (2, 0)


def test_nothing_stays_on_the_model(make_model, texts, images):
    model, sample, seen = make_model("gemma"), texts(first=2), images()
    before = {name: copy.copy(module.__dict__) for name, module in model.named_modules()}
    text = model.generate(sample["input_ids"], max_new_tokens=3)
    model.generate(sample["input_ids"], max_new_tokens=3, **seen)
    assert model.generate(sample["input_ids"], max_new_tokens=3).tolist() == text.tolist()
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys(), name


def test_bert_cannot_generate(make_model, texts):
    with pytest.raises(ConfigError, match="'bert' fills masks and cannot generate"):
        make_model("bert").generate(texts()["input_ids"])
