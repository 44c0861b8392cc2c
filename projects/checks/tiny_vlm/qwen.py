"""Qwen-VL and GLM-V: sizes by area, positions on three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers as t

from projects.checks.tiny_vlm.parts import CHATML, TEXT, chat, make_tokenizer

_IDS = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 4}
_SWITCH = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"


def _mrope(section: Sequence[int], **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(section)}
    return {"rope_parameters": {**rope, **more}}


def _sizes(patch: int) -> dict[str, Any]:
    area = (2 * patch) ** 2
    size = {"shortest_edge": 2 * area, "longest_edge": 12 * area}
    return {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, "size": size}


def _family(
    config: Any, processor: Any, video: Any, patch: int, vision: Any, text: Any, *, switch: str = ""
) -> tuple[Any, Any]:
    tokenizer = make_tokenizer((*CHATML, *_MARKS))
    sizes = _sizes(patch)
    template = chat("<|vision_start|><|image_pad|><|vision_end|>") + switch
    made = processor(
        t.Qwen2VLImageProcessor(**sizes), tokenizer, video(**sizes), chat_template=template
    )
    ids = zip(_IDS, tokenizer.convert_tokens_to_ids(list(_MARKS)), strict=True)
    text = {**TEXT, "vocab_size": len(tokenizer), **text}
    return config(text_config=text, vision_config={**_VISION, **vision}, **dict(ids)), made


def qwen2_vl() -> tuple[Any, Any]:
    """Return the config and the processor."""
    vision = {"embed_dim": 32, "mlp_ratio": 2}
    text = _mrope([2, 1, 1])
    return _family(t.Qwen2VLConfig, t.Qwen2VLProcessor, t.Qwen2VLVideoProcessor, 14, vision, text)


def qwen2_5_vl() -> tuple[Any, Any]:
    """Return the config and the processor."""
    vision = {
        "intermediate_size": 48, "out_hidden_size": 32, "fullatt_block_indexes": [1],
        "window_size": 56,
    }  # fmt: skip
    text = _mrope([2, 1, 1])
    return _family(
        t.Qwen2_5_VLConfig, t.Qwen2_5_VLProcessor, t.Qwen2VLVideoProcessor, 14, vision, text
    )


_VISION3 = {"intermediate_size": 48, "out_hidden_size": 32, "num_position_embeddings": 64}


def qwen3_vl() -> tuple[Any, Any]:
    """Return the config and the processor."""
    vision = {**_VISION3, "deepstack_visual_indexes": [0]}
    text = _mrope([2, 1, 1], mrope_interleaved=True)
    return _family(t.Qwen3VLConfig, t.Qwen3VLProcessor, t.Qwen3VLVideoProcessor, 16, vision, text)


def qwen3_5() -> tuple[Any, Any]:
    """Return the config and the processor; its template has a switch against reasoning."""
    text = {
        "layer_types": ["linear_attention", "full_attention"], "head_dim": 16,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        **_mrope([1, 1, 0], mrope_interleaved=True, partial_rotary_factor=0.25),
    }  # fmt: skip
    return _family(
        t.Qwen3_5Config, t.Qwen3VLProcessor, t.Qwen3VLVideoProcessor, 16, _VISION3, text,
        switch=_SWITCH,
    )  # fmt: skip


def glm4v() -> tuple[Any, Any]:
    """Return the config and the processor."""
    marks = (
        "<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|video|>",
        "<|begin_of_video|>", "<|end_of_video|>",
    )  # fmt: skip
    tokenizer = make_tokenizer((*CHATML, *marks))
    sizes = _sizes(14)
    template = chat("<|begin_of_image|><|image|><|end_of_image|>")
    processor = t.Glm4vProcessor(
        t.Glm4vImageProcessor(**sizes), tokenizer, t.Glm4vVideoProcessor(**sizes),
        chat_template=template,
    )  # fmt: skip
    names = ("image_start", "image_end", "image", "video", "video_start", "video_end")
    ids = zip(names, tokenizer.convert_tokens_to_ids(list(marks)), strict=True)
    vision = {**_VISION, "intermediate_size": 48, "out_hidden_size": 32, "image_size": 56}
    text = {**TEXT, "vocab_size": len(tokenizer), **_mrope([2, 1, 1])}
    config = t.Glm4vConfig(
        text_config=text, vision_config=vision, **{f"{name}_token_id": one for name, one in ids}
    )
    return config, processor
