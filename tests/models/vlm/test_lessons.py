"""Lessons of a batch: their targets, blanks in place of bad texts, and the mean of their losses."""

import pytest
import torch

from lavis.models.vlm.config import VlmStudentConfig
from lavis.models.vlm.lessons import fill_up, lesson_logits, make_lessons, mean_loss
from lavis.models.vlm.model import ImagePrompt
from lavis.models.vlm.student import VlmStudent

ANSWERS = ["a cat", "", "red", "blue dog"]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "molmo2"])
def model(request, vlm_folder):
    config = VlmStudentConfig(name=vlm_folder(request.param), dtype="fp32")
    return VlmStudent.from_config(config).eval()


def lessons(model, views):
    prompts = [ImagePrompt(1, "what?"), ImagePrompt(0, "who?"), ImagePrompt(1, "which colour?")]
    return make_lessons(model, views, [0, 1, 3], prompts, ANSWERS)


def test_targets_are_answers_and_what_cannot_be_used_is_left_out(model, views, caplog):
    made = lessons(model, views)
    tokenizer = model.processor.tokenizer
    written = {one.row.place: tokenizer.decode(one.target) for one in made}
    assert written == {0: "a cat<|im_end|>", 3: "blue dog<|im_end|>"}
    assert all(one.row.behind == one.target[:-1] for one in made)
    assert "training without a text: answer is empty" in caplog.text


def test_blanks_fill_a_batch_up_and_are_read_but_count_nothing(model, views):
    made = lessons(model, views)
    full = fill_up(model, made, 4)
    assert [one.is_blank for one in full] == [False, False, True, True]
    model.reader.passes["whole"] = 0
    logits, targets = lesson_logits(model, full)
    # of joined images one pass; else as many as texts, on every process alike
    assert model.reader.passes["whole"] == (4 if model.family.joins == "same" else 1)
    assert len(logits) == len(targets) and targets.tolist()[-2:] == [-100, -100]
    plain = mean_loss(*lesson_logits(model, made))
    torch.testing.assert_close(mean_loss(logits, targets), plain, atol=1e-5, rtol=0)


def test_the_mean_is_over_tokens_in_float32_and_0_of_none():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]], dtype=torch.bfloat16)
    loss = mean_loss(logits, torch.tensor([0, 1, -100]))
    assert loss.dtype == torch.float32
    expected = (torch.tensor(2.0).log() + torch.tensor([2.0, 0.0]).logsumexp(0)) / 2
    torch.testing.assert_close(loss, expected)
    assert mean_loss(logits, torch.tensor([-100] * 3)).item() == 0
