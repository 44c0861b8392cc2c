"""Families that cut an image into tiles: SmolVLM, Idefics3, InternVL, LLaVA, Molmo2."""

from __future__ import annotations

from typing import Any

import transformers as t

from projects.checks.tiny_vlm.parts import CHATML, TEXT, VISION, chat, make_tokenizer


def _idefics(kind: str) -> tuple[Any, Any]:
    marks = (
        "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", "<video>",
        *(f"<row_{row}_col_{col}>" for row in range(1, 5) for col in range(1, 5)),
    )  # fmt: skip
    tokenizer = make_tokenizer((*CHATML, *marks), bos=True)
    sizes = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}
    common: dict[str, Any] = {"image_seq_len": 4, "chat_template": chat("<image>", bos="<s>")}
    text = {**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)}
    vision = {**VISION, "image_size": 56, "patch_size": 14}
    options: dict[str, Any] = {
        "text_config": text, "vision_config": vision, "scale_factor": 2,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "pad_token_id": 0,
    }  # fmt: skip
    images: Any
    if kind == "idefics3":
        images = t.Idefics3ImageProcessor(**sizes)
        return t.Idefics3Config(**options), t.Idefics3Processor(images, tokenizer, **common)
    _without_num2words()
    images, video = t.SmolVLMImageProcessor(**sizes), t.SmolVLMVideoProcessor(**sizes)
    processor = t.SmolVLMProcessor(images, tokenizer, video, **common)
    return t.SmolVLMConfig(**options), processor


def _without_num2words() -> None:
    """SmolVLM's processor wants a package that only prompts about videos call."""
    from transformers.models.smolvlm import processing_smolvlm

    processing_smolvlm.num2words = processing_smolvlm.num2words or str


def idefics3() -> tuple[Any, Any]:
    """Return the config and the processor."""
    return _idefics("idefics3")


def smolvlm() -> tuple[Any, Any]:
    """Return the config and the processor."""
    return _idefics("smolvlm")


def internvl() -> tuple[Any, Any]:
    """Return the config and the processor."""
    named: dict[str, Any] = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    tokenizer = make_tokenizer(CHATML, **named)
    size = {"height": 56, "width": 56}
    images = t.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4)
    processor = t.InternVLProcessor(
        images, tokenizer, t.InternVLVideoProcessor(size=size), image_seq_length=4,
        chat_template=chat("<IMG_CONTEXT>\n"),
    )  # fmt: skip
    config = t.InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={**VISION, "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


_PINPOINTS = [[56, 56], [56, 112], [112, 56], [112, 112]]


def llava_onevision() -> tuple[Any, Any]:
    """Return the config and the processor."""
    tokenizer = make_tokenizer((*CHATML, "<image>", "<video>"))
    size = {"height": 56, "width": 56}
    images = t.LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=_PINPOINTS)
    processor = t.LlavaOnevisionProcessor(
        images, tokenizer, t.LlavaOnevisionVideoProcessor(size=size), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=chat("<image>\n"),
    )  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    vision = {**VISION, "model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14}
    config = t.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={**vision, "vision_use_head": False}, image_grid_pinpoints=_PINPOINTS,
        image_token_index=ids[0], video_token_index=ids[1],
    )  # fmt: skip
    return config, processor


_CLIP = {
    **VISION, "model_type": "clip_vision_model", "image_size": 56, "patch_size": 14,
    "projection_dim": 32,
}  # fmt: skip


def llava() -> tuple[Any, Any]:
    """Return the config and the processor, one without a chat template as the first ones."""
    tokenizer = make_tokenizer(("<image>",), bos=True)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    processor = t.LlavaProcessor(
        t.CLIPImageProcessor(**size), tokenizer, patch_size=14, num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    config = t.LlavaConfig(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config=_CLIP,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return config, processor


def llava_next() -> tuple[Any, Any]:
    """Return the config and the processor."""
    tokenizer = make_tokenizer((*CHATML, "<image>"), bos=True)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    processor = t.LlavaNextProcessor(
        t.LlavaNextImageProcessor(**size, image_grid_pinpoints=_PINPOINTS), tokenizer,
        patch_size=14, num_additional_image_tokens=1, vision_feature_select_strategy="default",
        chat_template=chat("<image>\n"),
    )  # fmt: skip
    config = t.LlavaNextConfig(
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config=_CLIP, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=_PINPOINTS,
    )  # fmt: skip
    return config, processor


def molmo2() -> tuple[Any, Any]:
    """Return the config and the processor."""
    marks = (
        "<|image|>", "<|video|>", "<im_patch>", "<im_col>", "<im_start>", "<low_res_im_start>",
        "<frame_start>", "<im_end>", "<frame_end>", "<im_low>",
    )  # fmt: skip
    tokenizer = make_tokenizer((*CHATML, *marks))
    sizes = {"size": {"height": 56, "width": 56}}
    images = t.Molmo2ImageProcessor(**sizes, max_crops=4, overlap_margins=[1, 1])
    processor = t.Molmo2Processor(
        images, t.Molmo2VideoProcessor(**sizes), tokenizer, chat_template=chat("<|image|>")
    )
    names = {
        "image_start_token_id": "<im_start>", "low_res_image_start_token_id": "<low_res_im_start>",
        "image_end_token_id": "<im_end>", "image_patch_id": "<im_patch>",
        "frame_start_token_id": "<frame_start>", "frame_end_token_id": "<frame_end>",
    }  # fmt: skip
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8}
    config = t.Molmo2Config(
        vision_config={**VISION, **heads, "image_size": [56, 56], "patch_size": 14},
        adapter_config={
            **heads, "hidden_size": 32, "intermediate_size": 48, "text_hidden_size": 32,
            "vision_feature_layer": [1, 0],
        },
        text_config={**TEXT, "vocab_size": len(tokenizer), "additional_vocab_size": 0},
        **{name: tokenizer.convert_tokens_to_ids(mark) for name, mark in names.items()},
    )  # fmt: skip
    return config, processor
