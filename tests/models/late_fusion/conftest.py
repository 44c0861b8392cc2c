"""Tiny random language models of many families, with vision features in place of images."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from lavis.models.late_fusion.config import FusionConfig, LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_PLAIN = {"word_embed_proj_dim": 32, "ffn_dim": 48}
# kind -> (model type, what differs from SIZES)
KINDS = {
    "gpt2": ("gpt2", _GPT2),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": 6, "final_logit_softcapping": 5.0}),
    "gemma3": ("gemma3_text", {"sliding_window": 6, "sliding_window_pattern": 2}),
    "llama": ("llama", {}),
    "opt": ("opt", _PLAIN),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": 6}),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi3": ("phi3", {"num_key_value_heads": 4, "rope_scaling": None}),
    "bert": ("bert", {}),
    "roberta": ("roberta", {"pad_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 66}),
}
# built only where a test asks for them
MORE = {
    "granite": ("granite", {"logits_scaling": 2.0, "embedding_multiplier": 3.0}),
    "olmo2": ("olmo2", {}),
    "cohere": ("cohere", {"logit_scale": 0.5}),
    "starcoder2": ("starcoder2", {}),
    "glm4": ("glm4", {}),
    "gpt_neox": ("gpt_neox", {}),
    "bloom": ("bloom", {"n_head": 4, "n_layer": 2}),
    "mamba": ("mamba", {}),
    "gpt_neo": (
        "gpt_neo",
        {
            "num_layers": 2,
            "num_heads": 4,
            "window_size": 2,
            "attention_types": [[["local", "global"], 1]],
        },
    ),
}
CAUSAL = [kind for kind in KINDS if kind not in ("bert", "roberta")]
PATCHES, WIDTH = 5, 12


@pytest.fixture(params=list(KINDS))
def kind(request):
    """Each kind of language model."""
    return request.param


@pytest.fixture(params=CAUSAL)
def causal(request):
    """Each kind that predicts the next token."""
    return request.param


@pytest.fixture(scope="session")
def texts():
    """Return `make_texts`."""
    return make_texts


@pytest.fixture(scope="session")
def images():
    """Return `make_images`."""
    return make_images


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory):
    """Return a function: kind -> folder with the config of a tiny model."""
    root = tmp_path_factory.mktemp("llm")

    def folder(kind: str, **overrides) -> Path:
        model_type, differing = {**KINDS, **MORE}[kind]
        config = AutoConfig.for_model(model_type, **{**SIZES, **differing, **overrides})
        path = root / f"{kind}{sorted(overrides.items())}".replace(" ", "")
        config.save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="session")
def make_config(llm_folder):
    """Return a function: kind, fields -> config of a model whose samples bring features."""

    def make(kind: str, *, init="random", intermediate_size=None, llm=None, **fields):
        return LateFusionConfig(
            llm=str(llm_folder(kind, **(llm or {}))),
            llm_weights="config",
            vision=VisionConfig(name=None, width=WIDTH),
            fusion=FusionConfig(init=init, intermediate_size=intermediate_size),
            **fields,
        )

    return make


@pytest.fixture(scope="session")
def make_model(make_config):
    """Return a function: kind, fields -> seeded model in evaluation mode."""

    @cache
    def known(kind: str, init: str) -> LateFusion:
        return build(make_config(kind, init=init))

    def make(kind: str, *, init: str = "random", **fields) -> LateFusion:
        if fields:
            return build(make_config(kind, init=init, **fields))
        return copy.deepcopy(known(kind, init))

    return make


def build(config: LateFusionConfig) -> LateFusion:
    """Build a seeded model; its fresh weights are large enough to matter."""
    torch.manual_seed(0)
    return LateFusion.from_config(config).eval()


def make_texts(lengths=(9, 6, 3), *, side: str = "right", seed: int = 0, first: int | None = None):
    """Return ids and mask of random texts, padded on a side."""
    draw = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        where = slice(0, length) if side == "right" else slice(longest - length, longest)
        tokens = torch.randint(3, 61, (length,), generator=draw)
        if first is not None:
            tokens[0] = first
        ids[row, where], mask[row, where] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


def make_images(texts: int = 3, count: int = 2, *, seed: int = 1):
    """Return features, index and scores: each text has `count` images out of a shared pool."""
    draw = torch.Generator().manual_seed(seed)
    pool = texts + 1
    return {
        "vision_features": torch.randn(pool, PATCHES, WIDTH, generator=draw),
        "image_index": torch.randint(0, pool, (texts, count), generator=draw),
        "scores": torch.rand(texts, count, generator=draw),
    }
