"""Stops a training whose loss, gradient or weights are no longer finite, naming the step."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lavis.common.dist import World
from lavis.common.errors import RunError
from lavis.common.sharded import own_part

ADVICE = (
    "lower run.init_lr, set run.max_grad_norm=1, use run.amp_dtype=bf16 in place of fp16, or look "
    "for broken labels in that batch; checkpoint_last is from before"
)


class DivergedError(RunError):
    """Training produced a value that is not a finite number."""


class FiniteGuard:
    """Remembers on the device the first iteration with a value that is not finite.

    Nothing is copied to the host until `check`, which the loop calls before it logs or saves; one
    CPU process is checked at once.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._first: Tensor | None = None
        self._at_once = world.size == 1 and world.device.type == "cpu"

    def update(self, iteration: int, value: Tensor) -> None:
        """Look at the loss or the gradient norm of an iteration."""
        value = value.detach()
        if self._first is None:
            self._first = torch.full((), -1, dtype=torch.long, device=value.device)
        new = ~torch.isfinite(value).all() & (self._first < 0)
        self._first = torch.where(new, torch.full_like(self._first, iteration), self._first)
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Raise `DivergedError` on every rank, naming the first iteration not finite on any."""
        mine = -1 if self._first is None else int(self._first)
        bad = [first for first in self._world.gather(mine, "finite losses") if first >= 0]
        if bad:
            raise DivergedError(
                f"iteration {min(bad)}: the loss or its gradient is not a finite number; {ADVICE}"
            )

    def check_weights(self, weights: Iterable[Tensor], iteration: int) -> None:
        """Raise on every rank if a weight is not finite; FSDP gives each rank a part of them."""
        sums = [own_part(weight.detach()).float().sum() for weight in weights]
        finite = not sums or bool(torch.isfinite(torch.stack(sums)).all())
        if not all(self._world.gather(finite, "finite weights")):
            raise DivergedError(
                f"iteration {iteration - 1}: a weight is not a finite number after it; {ADVICE}"
            )
