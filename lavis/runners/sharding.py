"""Training under `accelerate launch --use_fsdp --fsdp_version 2`: FSDP2 over a model's layers.

A layer's weights are gathered when it is called, in the forward and in the backward pass; all other
weights are gathered for the whole of a step, so that a model may use them anywhere in its
`forward`. Gradients are averaged as DDP does. Between steps each rank holds its part of every
weight, gradient and optimizer state.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as torch_dist
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from lavis.common.dist import World
from lavis.common.errors import ConfigError
from lavis.common.sharded import gather, is_wanted, like
from lavis.runners.contracts import RunnerModel

logger = logging.getLogger(__name__)


class Sharding:
    """What FSDP did to a model; without FSDP nothing, and no method does anything.

    Args:
        units: layers, then the model itself, which holds the rest of the weights.
        reshard: free a layer's weights after its forward pass.
    """

    def __init__(self, units: Sequence[FSDPModule] = (), *, reshard: bool = True) -> None:
        self._units, self._reshard = list(units), reshard

    def __bool__(self) -> bool:
        return bool(self._units)

    @contextmanager
    def whole(self, *, layers: bool = True) -> Iterator[None]:
        """Hold whole weights on every rank, so that each may call the model as often as it likes.

        Args:
            layers: those of layers too; else all ranks must make the same calls.
        """
        units = self._units if layers else self._units[-1:]
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in units[:-1]:
                unit.set_reshard_after_forward(self._reshard, recurse=False)
            # Ranks would fetch layers for the next backward pass by what each has called here.
            for root in units[-1:]:
                root.reset_iter_state()


def check_launch() -> None:
    """Raise `ConfigError` for a kind of FSDP that does not work here, before anything is moved."""
    if not is_wanted():
        return
    if not torch_dist.is_initialized():
        raise ConfigError(
            "ACCELERATE_USE_FSDP is set, but no processes are there to share the weights; start "
            "with accelerate launch --use_fsdp --fsdp_version 2 --num_processes N"
        )
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("accelerate's FSDP of version 1 does not work here; add --fsdp_version 2")
    plugin = FullyShardedDataParallelPlugin()
    if getattr(plugin.cpu_offload, "pin_memory", None) is not None:
        raise ConfigError("--fsdp_offload_params does not work here; leave it out")
    if plugin.activation_checkpointing:
        raise ConfigError(
            "--fsdp_activation_checkpointing does not work here; set model.use_grad_checkpoint=true"
        )


def shard(model: RunnerModel, world: World) -> Sharding:
    """Split a model's weights over the ranks, in place, where the launcher asks for it.

    The model's `layers_to_shard` says what is gathered one after the other. Weights without an
    axis (a temperature) stay whole, as FSDP cannot split them.

    Raises:
        ConfigError: weights that cannot be split.
    """
    if not is_wanted():
        return Sharding()
    for name, weight in model.named_parameters():
        if not weight.is_floating_point():
            raise ConfigError(
                f"{name} is quantized ({weight.dtype}), which FSDP cannot split; set "
                "model.quantize=null (model.quantization=null), or launch without FSDP"
            )
    reshard = bool(FullyShardedDataParallelPlugin().reshard_after_forward)
    layers = model.layers_to_shard(world.device)
    mesh = init_device_mesh(world.device.type, (world.size,))
    scalars = {weight for weight in model.parameters() if weight.ndim == 0}
    units: list[Any] = [*layers, model]
    for unit in units:
        fully_shard(unit, mesh=mesh, reshard_after_forward=reshard, ignored_params=scalars)
    root = units[-1]
    root.set_reshard_after_forward(False, recurse=False)
    root.set_reduce_scatter_unused_params(not getattr(model, "uses_every_weight", False))
    # The first module that is called becomes the root; without this, a tower that is called to
    # fill a cache would, and the model's own call would be refused.
    root._get_fsdp_state()._lazy_init()
    for weight in scalars:
        weight.data = weight.data.to(world.device)
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(_average_gradient)  # type: ignore[no-untyped-call]
    logger.info("FSDP splits %d layers over %d processes", len(layers), world.size)
    return Sharding(units, reshard=reshard)


def _average_gradient(weight: Tensor) -> None:
    assert weight.grad is not None
    torch_dist.all_reduce(weight.grad)
    weight.grad /= torch_dist.get_world_size()


def gather_optimizer(optimizer: Any, *, keep: bool) -> dict[str, Any]:
    """Return an optimizer's state with whole tensors; every rank must call this."""
    saved = optimizer.state_dict()
    state = {number: gather(each, keep=keep) for number, each in saved["state"].items()}
    return {**saved, "state": state}


def load_optimizer(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Load a state with whole tensors, written with or without FSDP."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {
            name: like(value, weights[number]) if value.shape == weights[number].shape else value
            for name, value in each.items()
        }
        for number, each in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})
