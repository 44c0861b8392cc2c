"""Exported students in plain transformers: the same scores, losses and texts."""

import json

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

from lavis.common.checkpoint import read_state_dict
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.blip2.config import Stage1Config
from lavis.models.blip2.hugging_face import export_student
from lavis.models.blip2.stage1 import Blip2Stage1
from lavis.processors import load_processor


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def image():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (40, 60, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@torch.no_grad()
def test_stage_1_gives_the_same_scores(stage1_state, tiny_sizes, stage1_golden, tmp_path, image):
    model = Blip2Stage1(Stage1Config(**tiny_sizes, embed_dim=24)).eval()
    model.load_state(stage1_state)
    export_student(model, tmp_path)
    theirs = Blip2ForImageTextRetrieval.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    texts = json.loads((stage1_golden / "cases.json").read_text())["texts"]
    pixels = torch.randn(len(texts), 3, 28, 28, generator=torch.Generator().manual_seed(1))
    scores = model.score({"image": pixels, "text_input": texts})

    images = [image] * len(texts)
    inputs = processor(
        images=images, text=texts, padding=True, truncation=True, return_tensors="pt",
        max_length=16 + 8,  # our 16 tokens behind 8 image tokens
    )  # fmt: skip
    ours = load_processor("blip_image_eval", {"name": "blip_image_eval", "image_size": 28})(image)
    close(inputs["pixel_values"][0], ours, 0.03)  # half a grey level: resized another way
    inputs["pixel_values"] = pixels
    matching = theirs(**inputs, use_image_text_matching_head=True).logits_per_image
    close(matching[:, 1], scores["itm"])
    contrast = theirs(**inputs, use_image_text_matching_head=False).logits_per_image
    close(contrast.diagonal(), scores["itc"])

    # and back: a folder of transformers' is a checkpoint of ours
    again = Blip2Stage1(Stage1Config(**tiny_sizes, embed_dim=24)).eval()
    again.load_state(read_state_dict(tmp_path))
    found = again.score({"image": pixels, "text_input": texts})
    close(found["itm"], scores["itm"])
    close(found["itc"], scores["itc"])


@pytest.mark.parametrize("kind", ["t5", "opt", "gpt2"])
def test_generative_students_give_the_same_loss_and_texts(
    language_models, tiny_sizes, tmp_path, kind
):
    arch, key = {
        "t5": ("blip2_t5", "t5_model"),
        "opt": ("blip2_opt", "opt_model"),
        "gpt2": ("blip2_llm", "llm_model"),
    }[kind]
    torch.manual_seed(0)
    sizes = {**tiny_sizes, "max_txt_len": 64, key: language_models[kind]}
    model = models.get(arch)(models.config_class(arch)(**sizes)).eval()
    with torch.no_grad():
        model.visual_encoder.pos_embed.normal_()
        model.llm_proj.weight.normal_(std=0.3)
    export_student(model, tmp_path)
    theirs = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 28, 28)
    given, wanted = "what is [0] ? answer:", "a red box"
    samples = {"image": pixels, "text_input": [given], "text_output": [wanted]}
    inputs = processor(text=given, images=Image.new("RGB", (9, 9)), return_tensors="pt")
    inputs["pixel_values"] = pixels
    with torch.no_grad():
        if kind == "t5":
            labels = model.llm_tokenizer(wanted, return_tensors="pt")["input_ids"]
            loss = theirs(**inputs, labels=labels).loss
        else:
            whole = model.llm_tokenizer(f"{given} {wanted}", return_tensors="pt")["input_ids"]
            whole = torch.cat([whole, torch.tensor([[model.llm_tokenizer.eos_token_id]])], dim=1)
            start = inputs["input_ids"].shape[1] - 8  # 8 image tokens
            images = inputs["input_ids"][:, :8]
            labels = torch.cat([torch.full((1, 8), -100), whole], dim=1)
            labels[:, : 8 + start] = -100
            ids = torch.cat([images, whole], dim=1)
            loss = theirs(pixel_values=pixels, input_ids=ids, labels=labels).loss
        close(loss, model(samples)["loss"])
        written = theirs.generate(
            **inputs, max_new_tokens=6, min_new_tokens=1, num_beams=1, do_sample=False,
            pad_token_id=model.llm_tokenizer.pad_token_id,
        )  # fmt: skip
    if kind != "t5":
        written = written[:, inputs["input_ids"].shape[1] :]  # they give the input back, too
    text = processor.batch_decode(written, skip_special_tokens=True)[0].strip()
    assert text == model.generate(samples, num_beams=1, max_length=6)[0]


def test_other_towers_are_refused(tiny_sizes, tmp_path):
    sizes = {**tiny_sizes, "vit_model": "vit_tiny_patch16_224", "image_size": 32, "vit": {}}
    model = Blip2Stage1(Stage1Config(**sizes))
    with pytest.raises(ConfigError, match="has no tower as vit_tiny_patch16_224"):
        export_student(model, tmp_path)
