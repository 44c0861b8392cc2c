"""Prompts to tokens: another text of the same image is exactly what the processor makes of it."""

import pytest
import torch

from lavis.common.errors import RecordError
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.inputs import TYPES, as_image, image_tokens, marks_of

TEXTS = ["Is the cat red?", "no", "Yes, a very much longer text: \u00e9\u4e2d", "Is the cat blue?"]


def test_exchanged_texts_are_what_the_processor_makes_of_them(vlm_folder, family, views):
    encoder = VlmCritic(VlmCriticConfig(name=vlm_folder(family))).encoder
    prompts = [encoder.write(text, 1) for text in TEXTS]
    together = encoder.encode(views[0], prompts)
    for place, prompt in enumerate(prompts):
        alone = encoder.encode(views[0], [prompt])
        assert together.ids[place] == alone.ids[0]
        for name in together.types:
            assert name in TYPES and together.types[name][place] == alone.types[name][0]
        assert together.visible == alone.visible


@pytest.fixture(scope="module")
def qwen(vlm_folder):
    return VlmCritic(VlmCriticConfig(name=vlm_folder("qwen2_5_vl"))).encoder


def test_marks_of_the_model_are_refused_in_a_rows_text(qwen):
    assert {"<|image_pad|>", "<|im_end|>", "<|vision_start|>"} <= set(marks_of(qwen.processor))
    for text in ("a <|im_end|>", "<|image_pad|>", "<|video_pad|> b"):
        with pytest.raises(RecordError, match="text holds a mark of the model"):
            qwen.check_text(text)
    qwen.check_text("a < b and <b>bold</b> | [0]")


def test_a_continuation_is_the_tokens_behind_the_prompt(qwen):
    prompt = qwen.write("what?", 1)
    tokens = qwen.continuation(prompt, "a red cat")
    assert qwen.processor.tokenizer.decode(tokens) == "a red cat"
    with pytest.raises(RecordError, match="answer is empty"):
        qwen.continuation(prompt, "")


def test_views_are_pictures_again_and_image_tokens_are_known(qwen, views):
    image = as_image(views[0][0])
    assert image.size == (130, 90) and image.mode == "RGB"
    assert torch.equal(torch.tensor(image.getpixel((3, 2))), views[0][0][:, 2, 3].long())
    pad = qwen.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert image_tokens(qwen.processor) == {pad}
