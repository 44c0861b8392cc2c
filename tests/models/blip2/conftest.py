"""Tiny models with a language model, and scores of the golden texts."""

import pytest
import torch

from lavis.common.registry import models

KEYS = {
    "t5": ("blip2_t5", "t5_model"),
    "opt": ("blip2_opt", "opt_model"),
    "gpt2": ("blip2_llm", "llm_model"),
}


@pytest.fixture
def build(language_models, tiny_sizes):
    def make(kind, **changes):
        arch, key = KEYS[kind]
        torch.manual_seed(0)
        sizes = {**tiny_sizes, "max_txt_len": 64, key: language_models[kind]}
        model = models.get(arch)(models.config_class(arch)(**{**sizes, **changes}))
        with torch.no_grad():
            model.visual_encoder.pos_embed.normal_()
            model.llm_proj.weight.normal_(std=0.3)
        return model.eval()

    return make


@pytest.fixture
def score(golden):
    batch = {"image": golden.inputs["image"], "text_input": golden.texts}
    return lambda model: model.eval().predict(batch)["logits"]
