"""Tiny random vision-language models as folders: real processors, a tokenizer made by hand."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = (
    "Yes yes YES No no NO Question Answer Rationale Region Is Does the a is not image figure show "
    "and it correct what colour cat dog red blue left right of A B C D Please or answer in this"
).split()
BASE = ("<pad>", "<s>", "</s>", "<unk>")


def make_tokenizer(specials: tuple[str, ...] = (), *, bos: bool = False, **named: str) -> Any:
    """Return a byte-level tokenizer that knows some words, alone and behind a blank.

    Args:
        specials: marks of the family, beside `BASE`.
        bos: put `<s>` in front of a text, as the processors of some families rely on.
        named: attributes such as `image_token`, which processors look for.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*BASE, *letters])}
    merges: list[tuple[str, str]] = []

    def join(left: str, right: str) -> str:
        if (left, right) not in merges:
            merges.append((left, right))
            vocabulary.setdefault(left + right, len(vocabulary))
        return left + right

    for word in WORDS:
        whole = functools.reduce(join, word)
        join("\u0120", whole)  # the byte-level mark of a blank
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    marks = dict.fromkeys([*BASE, *specials, *named.values()])
    core.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", extra_special_tokens=named, model_max_length=100_000,
    )  # fmt: skip


def chat(
    image: str, *, start: str = "<|im_start|>{}\n", end: str = "<|im_end|>\n", bos: str = ""
) -> str:
    """Return a chat template of the usual form; `start` has the place of the role."""
    before, after = start.split("{}")
    return (
        f"{bos}{{% for m in messages %}}{before}{{{{ m['role'] }}}}{after}"
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
        f"{{% for part in m['content'] %}}{{% if part['type'] == 'image' %}}{image}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        f"{end}{{% endfor %}}{{% if add_generation_prompt %}}{before}assistant{after}{{% endif %}}"
    )


@dataclass(frozen=True)
class Tiny:
    """What a family needs: its config, its processor, and the version it came with."""

    build: Callable[[], tuple[Any, Any]]  # -> config, processor
    cls: str
    options: dict[str, Any] = field(default_factory=dict)


TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
CHATML = ("<|im_start|>", "<|im_end|>")


def _get(path: str) -> Any:
    """Return `module:Class` of `transformers.models`."""
    module, name = path.split(":")
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)


def _mrope(section: list[int], **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section, **more}


def _qwen(kind: str) -> tuple[Any, Any]:
    import transformers as t

    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = make_tokenizer((*CHATML, *marks))
    patch = 14 if kind.startswith("qwen2") else 16
    size = {"shortest_edge": (2 * patch) ** 2 * 2, "longest_edge": (2 * patch) ** 2 * 12}
    about = {"patch_size": patch, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    video = t.Qwen2VLVideoProcessor if kind.startswith("qwen2") else t.Qwen3VLVideoProcessor
    processor_class = {
        "qwen2_vl": t.Qwen2VLProcessor, "qwen2_5_vl": t.Qwen2_5_VLProcessor,
    }.get(kind, t.Qwen3VLProcessor)  # fmt: skip
    template = chat("<|vision_start|><|image_pad|><|vision_end|>")
    if kind == "qwen3_5":
        template += (
            "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
        )
    processor = processor_class(
        t.Qwen2VLImageProcessor(**about), tokenizer, video(**about), chat_template=template
    )
    ids = dict(zip(
        ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
        tokenizer.convert_tokens_to_ids(list(marks)), strict=True,
    ))  # fmt: skip
    vision = {
        "qwen2_vl": {
            "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2,
        },
        "qwen2_5_vl": {
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4,
            "out_hidden_size": 32, "fullatt_block_indexes": [1], "window_size": 56,
        },
    }.get(kind, {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4,
        "out_hidden_size": 32, "num_position_embeddings": 64,
        **({"deepstack_visual_indexes": [0]} if kind == "qwen3_vl" else {}),
    })  # fmt: skip
    text = {**TEXT, "vocab_size": len(tokenizer)}
    if kind == "qwen3_vl":
        text |= {"rope_parameters": _mrope([2, 1, 1], mrope_interleaved=True)}
    elif kind == "qwen3_5":
        text |= {
            "layer_types": ["linear_attention", "full_attention"], "head_dim": 16,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "rope_parameters": _mrope(
                [1, 1, 0], mrope_interleaved=True, partial_rotary_factor=0.25
            ),
        }  # fmt: skip
    else:
        text |= {"rope_parameters": _mrope([2, 1, 1])}
    config_class = {
        "qwen2_vl": "Qwen2VLConfig", "qwen2_5_vl": "Qwen2_5_VLConfig", "qwen3_vl": "Qwen3VLConfig",
    }.get(kind, "Qwen3_5Config")  # fmt: skip
    return getattr(t, config_class)(text_config=text, vision_config=vision, **ids), processor


def _gemma3() -> tuple[Any, Any]:
    import transformers as t

    named = {
        "image_token": "<image_soft_token>", "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }  # fmt: skip
    tokenizer = make_tokenizer(("<start_of_turn>", "<end_of_turn>"), bos=True, **named)
    images = t.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    template = chat(
        "<start_of_image>", start="<start_of_turn>{}\n", end="<end_of_turn>\n",
        bos="{{ bos_token }}",
    )  # fmt: skip
    processor = t.Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)
    text = {
        **TEXT, "vocab_size": len(tokenizer), "sliding_window": 8, "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 56, "patch_size": 14,
    }  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids(list(named.values()))
    config = t.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4,
        image_token_index=ids[0], boi_token_index=ids[1], eoi_token_index=ids[2],
    )  # fmt: skip
    return config, processor


# The version of transformers a family came with, where that is not the lowest we allow.
SINCE: dict[str, str] = {}
BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    **{k: functools.partial(_qwen, k) for k in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")},
    "gemma3": _gemma3,
}


def make_vlm(family: str, folder: str | Path) -> str:
    """Write a tiny random model of a family with its processor; return the folder as text."""
    import torch
    from transformers import AutoModelForImageTextToText

    config, processor = BUILDERS[family]()
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():  # spread, so that a wrong position shows
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.5 if "embed" in name else 0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
