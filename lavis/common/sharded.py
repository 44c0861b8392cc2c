"""Find, gather and fill weights that FSDP splits over processes; others stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def is_wanted() -> bool:
    """Return whether `accelerate launch --use_fsdp` started this process."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


def is_sharded(module: nn.Module) -> bool:
    """Return whether FSDP gathers weights at calls in here: all ranks must make as many of them."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def whole(value: Tensor) -> Tensor:
    """Return the whole tensor; all ranks must call it on a split one."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def as_bytes(value: Tensor) -> Any:
    """Return a copy of the values as bytes for hashing; all ranks must call it on a split tensor.

    A copy, as FSDP could not free gathered weights that numpy looks at.
    """
    data = whole(value.detach()).to("cpu", copy=True)
    return data.contiguous().flatten().view(torch.uint8).numpy()


def own_part(value: Tensor) -> Tensor:
    """Return this rank's part of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Return whole tensors, the split ones on the CPU; every rank must call this.

    Args:
        keep: the result is wanted here; else it is empty, and no memory goes into it.
    """
    gathered: dict[str, Tensor] = {}
    for name, value in tensors.items():
        entire = whole(value)
        if keep:
            gathered[name] = entire.cpu() if isinstance(value, DTensor) else entire
    return gathered


def like(value: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor, the same on every rank, split as `own` is."""
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(
        value.to(own.device), own.device_mesh, own.placements, src_data_rank=None
    )


def named_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the items of `state_dict(keep_vars=True)`, in its order, as they are now.

    `state_dict()` itself makes FSDP split weights again that were gathered for an evaluation.
    """
    for prefix, part in module.named_modules(remove_duplicate=False):
        start = f"{prefix}." if prefix else ""
        for name, weight in part.named_parameters(recurse=False, remove_duplicate=False):
            yield start + name, weight
        for name, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
            if _is_saved(part, name):
                yield start + name, buffer


def _is_saved(part: nn.Module, buffer: str) -> bool:
    return buffer not in part._non_persistent_buffers_set


def repeated_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a network, in order: outermost `ModuleList`s, and timm's `blocks`."""
    layers: list[nn.Module] = []
    for name, child in module.named_children():
        if not isinstance(child, nn.ModuleList) and name != "blocks":
            layers += repeated_layers(child)
            continue
        for layer in child.children():
            nested = isinstance(layer, nn.ModuleList)
            layers += repeated_layers(layer) if nested else [layer]
    return [layer for layer in layers if next(layer.parameters(), None) is not None]
