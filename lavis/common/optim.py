"""Learning-rate schedules as pure functions, and AdamW over a model's parameter groups.

An epoch is a data epoch under `runner_base` and an inner epoch under `runner_iter`; a step is the
number of the batch within it, from 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lavis.common.errors import ConfigError
from lavis.common.registry import lr_schedulers


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Learning rate as a function of epoch and step; holds no state, so nothing to resume.

    Attributes:
        init_lr: the highest rate, reached at the end of the warm-up.
        warmup_steps: steps of the linear warm-up; 0 still gives step 0 `warmup_start_lr`.
        warmup_start_lr: rate of step 0; below 0 for `init_lr`.
        decay_rate: factor per epoch, step schedule only.
        steps_per_epoch: batches of an epoch, per-step schedules only.
        accumulate: batches to an optimizer step, for schedules that count these.
    """

    init_lr: float
    min_lr: float = 0.0
    warmup_steps: int = 0
    warmup_start_lr: float = -1.0
    max_epoch: int = 1
    decay_rate: float | None = None
    steps_per_epoch: int = 1
    accumulate: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        if self.init_lr < 0:
            raise ConfigError(f"run.init_lr is {self.init_lr}; use 0 or more")
        if self.max_epoch < 1:
            raise ConfigError(f"run.max_epoch is {self.max_epoch}; use 1 or more")

    def lr(self, epoch: int, step: int) -> float:
        """Return the rate of a step: warm-up in epoch 0, the decay after it, as LAVIS does."""
        return self._warm(step) if epoch == 0 else self._decayed(epoch)

    def _warm(self, step: int) -> float:
        start = self.warmup_start_lr if self.warmup_start_lr >= 0 else self.init_lr
        slope = (self.init_lr - start) * step / max(self.warmup_steps, 1)
        return min(self.init_lr, start + slope)

    @abstractmethod
    def _decayed(self, epoch: int) -> float:
        """Return the rate of an epoch after the first."""


@lr_schedulers.register("linear_warmup_cosine_lr")
@dataclass(frozen=True, kw_only=True)
class LinearWarmupCosine(Schedule):
    """Cosine over epochs, constant inside each; the warm-up ends with epoch 0 (LAVIS)."""

    def _decayed(self, epoch: int) -> float:
        share = 0.5 * (1.0 + math.cos(math.pi * epoch / self.max_epoch))
        return (self.init_lr - self.min_lr) * share + self.min_lr


@lr_schedulers.register("linear_warmup_step_lr")
@dataclass(frozen=True, kw_only=True)
class LinearWarmupStep(Schedule):
    """Multiply by `decay_rate` each epoch, down to `min_lr` (LAVIS)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay_rate is None:
            raise ConfigError(
                "run.lr_decay_rate: missing; linear_warmup_step_lr multiplies the rate by it at "
                "each epoch, e.g. 0.9"
            )

    def _decayed(self, epoch: int) -> float:
        assert self.decay_rate is not None
        return max(self.min_lr, self.init_lr * self.decay_rate**epoch)


@lr_schedulers.register("constant_lr")
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """`init_lr` after the warm-up (LAVIS)."""

    def _decayed(self, epoch: int) -> float:
        return self.init_lr


@lr_schedulers.register("linear_warmup_cosine_step_lr")
@dataclass(frozen=True, kw_only=True)
class LinearWarmupCosinePerStep(Schedule):
    """Cosine over steps after a warm-up of its full length, ending at `min_lr`.

    The default for new configs: LAVIS' schedule changes at epoch borders only, and cuts a warm-up
    that is longer than its first (inner) epoch.
    """

    def lr(self, epoch: int, step: int) -> float:
        """Return the rate of a step; only `epoch * steps_per_epoch + step` matters."""
        done = epoch * self.steps_per_epoch + step
        if done < self.warmup_steps:
            return self._warm(done)
        last = max(self.max_epoch * self.steps_per_epoch - 1, self.warmup_steps + 1)
        share = min(1.0, (done - self.warmup_steps) / (last - self.warmup_steps))
        return self.min_lr + (self.init_lr - self.min_lr) * 0.5 * (1.0 + math.cos(math.pi * share))

    def _decayed(self, epoch: int) -> float:
        return self.lr(epoch, 0)


@dataclass(frozen=True, kw_only=True)
class LibrarySchedule(Schedule):
    """A schedule of `transformers.get_scheduler`, over optimizer steps, ending at `min_lr`.

    (The released training counted batches, so with accumulation it never came to its end.)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        from transformers import get_scheduler

        rates = torch.optim.SGD([torch.zeros(1)], lr=self.init_lr or 1.0)
        library = get_scheduler(
            self.name,
            rates,
            num_warmup_steps=self.warmup_steps,
            num_training_steps=self.max_epoch * self._updates,
        )
        object.__setattr__(self, "_share", library.lr_lambdas[0])

    @property
    def _updates(self) -> int:
        """Optimizer steps of an epoch; its last one may have fewer batches."""
        return -(-self.steps_per_epoch // self.accumulate)

    def lr(self, epoch: int, step: int) -> float:
        """Return the rate of the optimizer step that a batch belongs to."""
        done = epoch * self._updates + step // self.accumulate
        share: float = self._share(done)  # type: ignore[attr-defined]
        return self.min_lr + (self.init_lr - self.min_lr) * share

    def _decayed(self, epoch: int) -> float:
        return self.lr(epoch, 0)


def build_schedule(run: Any, *, max_epoch: int, steps_per_epoch: int) -> Schedule:
    """Return the schedule that `run.lr_sched` names, set up from the `run` section.

    Args:
        run: `RunConfig`.
        max_epoch: epochs, or inner epochs, of the whole training.
        steps_per_epoch: batches of one (inner) epoch.
    """
    lr_schedulers.check(run.lr_sched, "run.lr_sched")
    cls: type[Schedule] = lr_schedulers.get(run.lr_sched)
    return cls(
        init_lr=float(run.init_lr),
        min_lr=float(run.min_lr),
        warmup_steps=int(run.warmup_steps),
        warmup_start_lr=float(run.warmup_lr),
        max_epoch=max_epoch,
        decay_rate=run.lr_decay_rate,
        steps_per_epoch=steps_per_epoch,
        accumulate=int(run.accum_grad_iters),
        name=str(run.lr_sched),
    )


def build_optimizer(
    groups: Sequence[dict[str, Any]], *, lr: float, beta2: float
) -> torch.optim.AdamW:
    """Return AdamW with betas (0.9, beta2), eps 1e-8.

    Args:
        groups: of `model.get_optimizer_params`: `params`, `weight_decay`, `lr_scale`.

    Raises:
        ConfigError: nothing can be trained.
    """
    kept = [{"lr_scale": 1.0, **group} for group in groups if len(list(group["params"]))]
    if not kept:
        raise ConfigError(
            "model: every parameter is frozen, so there is nothing to train; set run.evaluate=true "
            "or thaw a part of the model"
        )
    return torch.optim.AdamW(kept, lr=lr, betas=(0.9, beta2), eps=1e-8)


def set_lr(optimizer: Any, lr: float) -> None:
    """Write `lr * lr_scale` into each group, so that a layer-wise decay really applies."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
