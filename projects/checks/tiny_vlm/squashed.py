"""Families that squash an image: Gemma, PaliGemma, Kosmos-2, BLIP-2, Florence-2."""

from __future__ import annotations

from typing import Any

import transformers as t

from projects.checks.tiny_vlm.parts import TEXT, VISION, chat, make_tokenizer

_TURNS = ("<start_of_turn>", "<end_of_turn>")
_TURN = {"start": "<start_of_turn>{}\n", "end": "<end_of_turn>\n", "bos": "{{ bos_token }}"}
_SIZE = {"height": 56, "width": 56}
_SIGLIP = {**VISION, "image_size": 56, "patch_size": 14}
_WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}


def gemma3() -> tuple[Any, Any]:
    """Return the config and the processor; half of its layers see a window of eight tokens."""
    named = {
        "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }  # fmt: skip
    tokenizer = make_tokenizer(_TURNS, bos=True, **named)
    processor = t.Gemma3Processor(
        t.Gemma3ImageProcessor(size=_SIZE), tokenizer, image_seq_length=4,
        chat_template=chat("<start_of_image>", **_TURN),
    )  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids(list(named.values()))
    text = {**TEXT, "vocab_size": len(tokenizer), **_WINDOWS, "query_pre_attn_scalar": 8}
    config = t.Gemma3Config(
        text_config=text, vision_config=_SIGLIP, mm_tokens_per_image=4,
        image_token_index=ids[0], boi_token_index=ids[1], eoi_token_index=ids[2],
    )  # fmt: skip
    return config, processor


def gemma4() -> tuple[Any, Any]:
    """Return the config and the processor; image tokens see each other in both directions."""
    named = {
        "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
        "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>",
    }  # fmt: skip
    tokenizer = make_tokenizer((*_TURNS, "<|video|>"), bos=True, **named)
    processor = t.Gemma4Processor(
        t.Gemma4AudioFeatureExtractor(), t.Gemma4ImageProcessor(max_soft_tokens=70), tokenizer,
        t.Gemma4VideoProcessor(), chat_template=chat("<|image|>", **_TURN),
    )  # fmt: skip
    ids = dict(zip(named, tokenizer.convert_tokens_to_ids(list(named.values())), strict=True))
    text = {
        **TEXT, "vocab_size": len(tokenizer), **_WINDOWS, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": len(tokenizer), "use_bidirectional_attention": "vision",
        "global_head_dim": 8,
    }  # fmt: skip
    vision = {**VISION, "num_key_value_heads": 4, "head_dim": 8, "position_embedding_size": 64}
    config = t.Gemma4Config(
        text_config=text, vision_config=vision, audio_config=None,
        image_token_id=ids["image_token"], boi_token_id=ids["boi_token"],
        eoi_token_id=ids["eoi_token"], audio_token_id=ids["audio_token"],
        boa_token_id=ids["boa_token"], eoa_token_index=ids["eoa_token"],
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"), tie_word_embeddings=False,
    )  # fmt: skip
    return config, processor


def paligemma() -> tuple[Any, Any]:
    """Return the config and the processor, which knows no chat template."""
    tokenizer = make_tokenizer(image_token="<image>")
    images: Any = t.SiglipImageProcessor(size=_SIZE)
    images.image_seq_length = 16
    processor = t.PaliGemmaProcessor(images, tokenizer)
    config = t.PaliGemmaConfig(
        text_config={**TEXT, "model_type": "gemma", "vocab_size": len(tokenizer)},
        vision_config={**_SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), projection_dim=32,
        hidden_size=32, vocab_size=len(tokenizer),
    )  # fmt: skip
    return config, processor


def kosmos2() -> tuple[Any, Any]:
    """Return the config and the processor."""
    tokenizer = make_tokenizer()
    size = {"size": {"shortest_edge": 56}, "crop_size": _SIZE}
    processor = t.Kosmos2Processor(t.CLIPImageProcessor(**size), tokenizer)
    config = t.Kosmos2Config(
        text_config={
            "vocab_size": len(tokenizer), "embed_dim": 32, "layers": 2, "ffn_dim": 48,
            "attention_heads": 4, "dropout": 0.0, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={**VISION, "image_size": 56, "patch_size": 14}, latent_query_num=64,
    )  # fmt: skip
    return config, processor


def blip2() -> tuple[Any, Any]:
    """Return the config and the processor, of the form with OPT."""
    tokenizer = make_tokenizer(("<image>",), bos=True)
    tokenizer.image_token = t.AddedToken("<image>", special=True, normalized=False)
    processor = t.Blip2Processor(t.BlipImageProcessor(size=_SIZE), tokenizer, num_query_tokens=4)
    width = {"hidden_size": 32, "intermediate_size": 48}
    config = t.Blip2Config(
        vision_config={**VISION, "image_size": 56, "patch_size": 14},
        qformer_config={
            **width, "num_hidden_layers": 2, "num_attention_heads": 4, "encoder_hidden_size": 32,
            "vocab_size": 50,
        },
        text_config={
            "model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 32, "ffn_dim": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512,
            "word_embed_proj_dim": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        },
        num_query_tokens=4, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return config, processor


def florence2() -> tuple[Any, Any]:
    """Return the config and the processor; the prompt goes to an encoder."""
    tokenizer = make_tokenizer(image_token="<image>")
    images: Any = t.CLIPImageProcessor(size=_SIZE, do_center_crop=False)
    images.image_seq_length = 5
    processor = t.Florence2Processor(images, tokenizer)
    config = t.Florence2Config(
        text_config={
            "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32,
            "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
            "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 2,
        },
        vision_config={
            "depths": [1, 1, 1, 1], "embed_dim": [8, 16, 16, 32], "num_heads": [1, 2, 2, 4],
            "num_groups": [1, 2, 2, 4], "window_size": 4, "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    return config, processor
