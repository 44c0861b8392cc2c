"""Epochs: a pass over the data under `runner_base`, a number of batches under `runner_iter`.

The loop is the same for both; these classes say how long an epoch is and which batches it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from lavis.common.config.run import RunConfig
from lavis.runners.resume import TrainerState
from lavis.runners.sampler import BatchRequest, BatchSampler, Cursor


class ByEpochs:
    """An epoch is a pass over the data.

    Attributes:
        best_key: name of the best checkpoint's time in log lines.
        epochs: of the whole training.
        schedule_epochs: over which the learning rate falls.
        steps_per_epoch: batches of a whole epoch.
    """

    best_key = "best_epoch"

    def __init__(self, run: RunConfig, sampler: BatchSampler) -> None:
        assert run.max_epoch is not None, "checked by run.check_training()"
        self._sampler = sampler
        self.epochs = self.schedule_epochs = run.max_epoch
        self.steps_per_epoch = sampler.steps_left(sampler.start())

    def steps(self, state: TrainerState) -> int:
        """Return the batches of the current epoch, those done included, for any world size."""
        return state.step + self._sampler.steps_left(state.cursor)

    def requests(self, state: TrainerState) -> Iterator[BatchRequest]:
        """Yield the batches that the current epoch has left."""
        return self._sampler.epoch(state.cursor)

    def close(self, cursor: Cursor) -> Cursor:
        """Return the position in the data after an epoch: the start of the next pass."""
        return Cursor(cursor.epoch + 1, self._sampler.start().consumed)

    def token(self, state: TrainerState) -> str:
        """Return the complete epoch's name in results: its number, from 0."""
        return str(state.epoch - 1)

    def when(self, state: TrainerState) -> int:
        """Return the epoch's number in log lines, from 0."""
        return state.epoch - 1


class ByIterations:
    """An inner epoch is `iters_per_inner_epoch` batches; the data go on from one to the next.

    The batch with number i, from 0, belongs to inner epoch `i // iters_per_inner_epoch`; the last
    one is shorter where `max_iters` is no multiple.
    """

    best_key = "best_iters"

    def __init__(self, run: RunConfig, sampler: BatchSampler) -> None:
        assert run.max_iters is not None and run.iters_per_inner_epoch is not None
        self._sampler = sampler
        self._total, self.steps_per_epoch = run.max_iters, run.iters_per_inner_epoch
        self.epochs = -(-self._total // self.steps_per_epoch)
        self.schedule_epochs = max(1, self._total // self.steps_per_epoch)  # as LAVIS rounds

    def steps(self, state: TrainerState) -> int:
        """Return `iters_per_inner_epoch`, or what `max_iters` leaves."""
        return min(self.steps_per_epoch, self._total - state.epoch * self.steps_per_epoch)

    def requests(self, state: TrainerState) -> Iterator[BatchRequest]:
        """Yield across the ends of the data."""
        left = self.steps(state) - state.step
        return islice(self._sampler.endless(state.cursor), left)

    def close(self, cursor: Cursor) -> Cursor:
        """Go on where the inner epoch ended."""
        return cursor

    def token(self, state: TrainerState) -> str:
        """Return `<pass over the data>_iters=<iterations done>`."""
        return f"{state.cursor.epoch}_iters={state.iteration}"

    def when(self, state: TrainerState) -> int:
        """Return the iterations done."""
        return state.iteration


Counting = ByEpochs | ByIterations
