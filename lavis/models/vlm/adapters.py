"""Low-rank adapters inside a vision-language model: added in place, and merged into its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lavis.common.errors import ConfigError, nearest
from lavis.models.lora import LoraOptions, lora_settings


def language_part(vlm: Any) -> nn.Module:
    """Return the part of a model that reads and writes text, without its vision tower."""
    part: nn.Module = vlm.get_decoder()
    return part


def add_adapters(vlm: Any, options: LoraOptions) -> None:
    """Put trainable adapters, in float32, on linear layers of the language model.

    The model keeps its class; a layer `q_proj` becomes `q_proj.base_layer` and its adapters.

    Raises:
        ConfigError: peft is not installed, or none of the layers is there.
    """
    layers = _linear_layers(vlm)
    targets = _targets(layers, options.target_modules)
    settings = lora_settings(options, targets=targets)
    from peft import inject_adapter_in_model

    inject_adapter_in_model(settings, vlm)
    for name, weight in vlm.named_parameters():
        weight.requires_grad = "lora_" in name
        if weight.requires_grad:
            weight.data = weight.data.float()
    vlm.train(vlm.training)  # what is new is in training mode


def checkpoint_layers(vlm: Any) -> None:
    """Let layers compute activations again in the backward pass, while in training mode.

    Raises:
        ConfigError: the family cannot.
    """
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # new, and former
    enable = getattr(vlm, next(name for name in names if hasattr(vlm, name)))
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(f"model.use_grad_checkpoint: {error}; use false") from None


def merge_adapters(vlm: nn.Module) -> int:
    """Add adapters to the weights below them and remove them, in place; return how many."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, m) for name, m in vlm.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in layers:
        layer.merge(safe_merge=True)
        above, _, last = name.rpartition(".")
        setattr(vlm.get_submodule(above), last, layer.get_base_layer())
    return len(layers)


def _linear_layers(vlm: Any) -> list[str]:
    """Return names of the language model's linear layers, without the one that gives logits."""
    part, head = language_part(vlm), vlm.get_output_embeddings()
    below = {id(module) for module in part.modules()}
    return [
        name
        for name, module in vlm.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) in below and module is not head
    ]


def _targets(layers: list[str], wanted: list[str] | None) -> list[str]:
    if wanted is None:
        return layers
    for one in wanted:
        if not any(_ends_in(layer, one) for layer in layers):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            raise ConfigError(
                f"model.lora.target_modules: the language model has no linear layer '{one}'"
                f"{nearest(one, known)}; it has {', '.join(known)}"
            )
    return [layer for layer in layers if any(_ends_in(layer, one) for one in wanted)]


def _ends_in(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")
