"""Tiny random vision-language models as folders, a family each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from projects.checks.tiny_vlm import qwen, squashed, tiled

# Model type -> what makes its config and its processor.
BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "qwen2_vl": qwen.qwen2_vl,
    "qwen2_5_vl": qwen.qwen2_5_vl,
    "qwen3_vl": qwen.qwen3_vl,
    "qwen3_5": qwen.qwen3_5,
    "glm4v": qwen.glm4v,
    "gemma3": squashed.gemma3,
    "gemma4": squashed.gemma4,
    "paligemma": squashed.paligemma,
    "kosmos-2": squashed.kosmos2,
    "blip-2": squashed.blip2,
    "florence2": squashed.florence2,
    "smolvlm": tiled.smolvlm,
    "idefics3": tiled.idefics3,
    "internvl": tiled.internvl,
    "llava": tiled.llava,
    "llava_next": tiled.llava_next,
    "llava_onevision": tiled.llava_onevision,
    "molmo2": tiled.molmo2,
}


def why_absent(family: str) -> str:
    """Return why a family cannot be made here, '' where it can."""
    if family in transformers.CONFIG_MAPPING:
        return ""
    return f"transformers {transformers.__version__} has no '{family}'"


def make_vlm(family: str, folder: str | Path, *, seed: int = 0) -> str:
    """Write a tiny random model of a family with its processor; return the folder as text.

    Example:
        >>> make_vlm("qwen3_vl", "/tmp/qwen3_vl")
        '/tmp/qwen3_vl'
    """
    config, processor = BUILDERS[family]()
    save_random(config, processor, folder, seed=seed)
    return str(folder)


def save_random(config: Any, processor: Any, folder: str | Path, *, seed: int = 0) -> None:
    """Save a model of a config with random weights, and its processor."""
    torch.manual_seed(seed)
    model: Any = transformers.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():  # spread, so that a wrong position or image shows
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.5 if "embed" in name else 0.8 / weight.shape[-1] ** 0.5)
    if config.is_encoder_decoder:  # as the published ones
        model.generation_config.forced_bos_token_id = 1
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
