"""The plan of a job's units and the finished rows of one, as tasks and runners see each other's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class UnitPlan(Protocol):
    """Which rows belong to which unit: `order` is `(R,)` row numbers, `offsets` is `(U + 1,)`."""

    @property
    def order(self) -> np.ndarray: ...

    @property
    def offsets(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def rows(self, unit: int) -> np.ndarray: ...


class RowReader(Protocol):
    """Finished rows in data-set order, such as those of a `JournalReader`."""

    def iterate_raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, the payload's JSON text)."""
        ...
