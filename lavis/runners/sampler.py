"""Which rows make which training batch, on which rank: a function of seed, epoch and position.

Positions count samples of all ranks, so a run can resume with another world size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lavis.common.errors import ConfigError


@dataclass(frozen=True)
class Cursor:
    """Position in the training data.

    Attributes:
        epoch: passes over the data that are complete.
        consumed: samples that all ranks together took from each data set in this epoch.
    """

    epoch: int
    consumed: tuple[int, ...]

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> Cursor:
        """Return the position that `asdict` described, read from JSON."""
        return cls(int(state["epoch"]), tuple(int(n) for n in state["consumed"]))  # type: ignore


@dataclass(frozen=True)
class BatchRequest:
    """One rank's rows of one step.

    Attributes:
        epoch: data epoch, part of the seed of each row's augmentation.
        dataset: number of the data set; a batch holds rows of one.
        indices: row numbers.
        after: position once this step is done.
    """

    epoch: int
    dataset: int
    indices: tuple[int, ...]
    after: Cursor


class BatchSampler:
    """Shuffled batches of equal size on every rank.

    Each data set has one permutation per epoch, from (seed, epoch, data set); a step takes the next
    `batch_size * world_size` samples of one data set, and rank r every world_size-th of them. Rows
    that fill no whole step are left out of the epoch (a data set smaller than one step is repeated
    to fill it).

    With `ratios`, each step draws its data set with these probabilities and a data set that ends
    starts over, reshuffled; without, every row comes once per epoch and a data set is drawn in
    proportion to the steps it has left.

    Args:
        sizes: rows of each data set.
        batch_size: samples per rank and step.
        ratios: one weight for each data set, any scale.

    Raises:
        ConfigError: a data set is empty, or the ratios do not fit.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        ratios: Sequence[float] | None = None,
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise ConfigError("run.train_splits: a training data set has no rows")
        if ratios is not None and (
            len(ratios) != len(sizes) or min(ratios) < 0 or sum(ratios) <= 0
        ):
            raise ConfigError(
                f"run.train_dataset_ratios: {list(ratios)} found; write one weight of 0 or more "
                f"for each of the {len(sizes)} data sets"
            )
        self._sizes = list(sizes)
        self._step = batch_size * world_size
        self._rank, self._world = rank, world_size
        self._seed = seed
        self._ratios = list(ratios) if ratios is not None else None
        self._orders: dict[int, tuple[tuple[int, int], np.ndarray]] = {}

    def start(self) -> Cursor:
        """Return the position before the first sample."""
        return Cursor(0, (0,) * len(self._sizes))

    def steps_left(self, cursor: Cursor) -> int:
        """Return the steps from a position to the end of its epoch."""
        if self._ratios is None:
            return sum(self._left(cursor))
        total = max(1, sum(self._sizes) // self._step)
        return max(0, total - -(-sum(cursor.consumed) // self._step))

    def epoch(self, cursor: Cursor) -> Iterator[BatchRequest]:
        """Yield this rank's batches from a position to the end of its epoch."""
        while self.steps_left(cursor) > 0:
            request = self._next(cursor)
            yield request
            cursor = request.after

    def endless(self, cursor: Cursor) -> Iterator[BatchRequest]:
        """Yield this rank's batches from a position on, epoch after epoch."""
        while True:
            yield from self.epoch(cursor)
            cursor = Cursor(cursor.epoch + 1, (0,) * len(self._sizes))

    def _left(self, cursor: Cursor) -> list[int]:
        """Whole steps that each data set has left; a small data set has one."""
        left = []
        for size, taken in zip(self._sizes, cursor.consumed, strict=True):
            usable = max(size, self._step)
            left.append(max(0, usable - taken) // self._step)
        return left

    def _next(self, cursor: Cursor) -> BatchRequest:
        number = self._draw(cursor)
        taken = cursor.consumed[number]
        mine = range(taken + self._rank, taken + self._step, self._world)
        indices = tuple(self._row(number, cursor.epoch, position) for position in mine)
        consumed = list(cursor.consumed)
        consumed[number] += self._step
        return BatchRequest(cursor.epoch, number, indices, Cursor(cursor.epoch, tuple(consumed)))

    def _draw(self, cursor: Cursor) -> int:
        if len(self._sizes) == 1:
            return 0
        weights = self._ratios if self._ratios is not None else self._left(cursor)
        dice = random.Random(f"{self._seed}/{cursor.epoch}/{sum(cursor.consumed)}")
        return dice.choices(range(len(self._sizes)), weights=weights)[0]

    def _row(self, number: int, epoch: int, position: int) -> int:
        size = self._sizes[number]
        cycle, place = divmod(position, size)
        kept = self._orders.get(number)
        if kept is None or kept[0] != (epoch, cycle):
            generator = np.random.default_rng([self._seed, epoch, number, cycle])
            kept = ((epoch, cycle), generator.permutation(size))
            self._orders[number] = kept
        return int(kept[1][place])
