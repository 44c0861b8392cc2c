"""Texts get the images of their prompts, weighed; texts without words get none."""

import pytest
import torch

pytest.importorskip("lm_eval")

from lavis.generators.prompts import image_prompts
from lavis.integrations.harness import LateFusionLM
from lavis.integrations.harness_images import as_question


def test_a_text_is_a_question_of_its_images_only():
    question = as_question("a red hat")
    assert question.image_texts == (question.image_text,) == question.prompts == ("a red hat",)
    assert question.options == () and question.question_id == ""


def test_each_image_is_encoded_once_and_empty_texts_have_none(tiny, images):
    prompts = [prompt for text in ("a man", "a dog") for prompt in image_prompts(text, 2)]
    lm = LateFusionLM(**tiny.args, **images(prompts, 2), device="cpu")
    texts = ["a man", " ", "a dog", "a man"]
    lm._images.prepare(lm.model, texts)
    samples = lm._images.samples(texts)
    assert samples["image_index"].tolist() == [[0, 1], [-1, -1], [2, 3], [0, 1]]
    assert samples["vision_features"].shape[0] == 4  # (N, P, D)
    assert torch.isfinite(samples["vision_features"]).all()
    assert lm._images.samples([" "]) == {}
