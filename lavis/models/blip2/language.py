"""Language models behind BLIP-2's images: loading, adapters, texts to tokens, padding.

Shapes: N texts, L tokens, H width of the language model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    T5Config,
)

from lavis.common.dist import target_device
from lavis.common.errors import ConfigError
from lavis.common.pretrained import load_pretrained, load_tokenizer, load_whole_model
from lavis.models.base import DTYPES, freeze
from lavis.models.lora import LoraOptions, lora_settings


def load_language_model(name: str, precision: str, *, key: str) -> nn.Module:
    """Return a frozen language model, in half precision where it will run on a GPU.

    T5's gated units use the exact gelu, as BLIP-2's T5 weights were trained with.

    Args:
        name: name or folder.
        precision: `fp16`, `bf16` or `fp32`.
        key: the config's key, for messages.

    Raises:
        ConfigError: it cannot be read.
    """
    dtype = DTYPES[precision] if target_device().type == "cuda" else torch.float32
    refusal = f"model.{key}: cannot build '{name}'"
    config = load_pretrained(AutoConfig, name, refusal=refusal)
    if isinstance(config, T5Config) and config.is_gated_act:
        config.dense_act_fn = "gelu"
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = load_whole_model(auto, name, refusal=refusal, config=config, dtype=dtype)
    freeze(model)
    return model


def load_padding_tokenizer(name: str, *, key: str) -> Any:
    """Return a language model's tokenizer; one without a padding token pads with its end token.

    Raises:
        ConfigError: it cannot be read, or has no end token.
    """
    tokenizer = load_tokenizer(name, f"model.{key}")
    if tokenizer.eos_token is None:
        raise ConfigError(f"model.{key}: the tokenizer of '{name}' has no end token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def add_adapters(model: nn.Module, options: LoraOptions, *, decoder_only: bool) -> nn.Module:
    """Return the model with trainable low-rank adapters, its own weights frozen.

    Raises:
        ConfigError: peft is not installed, or knows no layers for this model.
    """
    task_type = "CAUSAL_LM" if decoder_only else "SEQ_2_SEQ_LM"
    settings = lora_settings(options, targets=options.target_modules, task_type=task_type)
    from peft import get_peft_model

    try:
        return get_peft_model(model, settings)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"model.lora.target_modules: {error}") from None


def input_ids(tokenizer: Any, text: str, most: int) -> list[int]:
    """Return the tokens of an input to a decoder, with its start token, without an end token."""
    ids = tokenizer(text)["input_ids"]
    if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids[:most]


def output_ids(tokenizer: Any, text_input: str, text_output: str, most: int) -> list[int]:
    """Return the tokens of what follows an input and a blank, with an end token unless cut."""
    before = input_ids(tokenizer, text_input, 10**6)
    whole = input_ids(tokenizer, f"{text_input} {text_output}".strip(), 10**6)
    ids = whole[len(before) :]
    if whole[: len(before)] != before or not ids:  # the blank was merged with the input
        ids = tokenizer(f" {text_output}", add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id][:most]


def pad(rows: list[list[int]], value: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return rows of tokens as `(N, L)` and their mask, padded to the longest."""
    sides: Any = "left" if left else "right"
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    ids = pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=sides)
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return ids, pad_sequence(ones, batch_first=True, padding_side=sides)
