"""Planned work: units that one rank does once and journals, and does again where that is due.

The loop of every job that resumes after a crash: evaluation, verbalization, generation. A unit is
finished when its rows are in the journal, rejected ones with their reasons among them; with `again`
a part of it is left for the next start. Some errors stop a job early, and lose nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lavis.common.errors import ConfigError
from lavis.common.storage.inputs import Changed, changed_units
from lavis.common.storage.journal import Finished

if TYPE_CHECKING:
    from lavis.common.dist import World


class UnitResult(NamedTuple):
    """A finished unit; the arguments of `Journal.append`."""

    unit: int
    rows: Sequence[tuple[int, Mapping[str, Any]]]
    inputs: Sequence[Any] = ()
    again: bool = False


class UnitWriter(Protocol):
    """A journal, or several of them behind one `append`."""

    def append(
        self,
        unit: int,
        rows: Sequence[tuple[int, Mapping[str, Any]]],
        inputs: Sequence[Any] = (),
        again: bool = False,
    ) -> None:
        """Write a finished unit; on return it survives a SIGKILL of this process."""
        ...


class UnitsLeft(NamedTuple):
    """Units that are to be done: sorted, int64; and the number of this start."""

    units: np.ndarray
    start: int

    def of_rank(self, world: World) -> list[int]:
        """Return the units of this process."""
        left: list[int] = self.units[world.rank :: world.size].tolist()
        return left


def units_left(count: int, before: Finished, redone: Iterable[int] = ()) -> UnitsLeft:
    """Return the units below `count` that no start has finished, and those of `redone`."""
    done = np.zeros(count, dtype=bool)
    done[list(before.units)] = True
    done[list(redone)] = False
    return UnitsLeft(np.flatnonzero(~done), before.next_start)


def changed_inputs(
    before: Finished,
    places: Sequence[str],
    *,
    folder: Path,
    what: str,
    beat: Callable[[], object],
    noted: Iterable[tuple[int, list[Any], Sequence[str]]] | None = None,
) -> list[Changed]:
    """Return the finished units whose input files are not what they were.

    Args:
        before: units that earlier starts have finished.
        places: folders that names of inputs are relative to.
        folder, what: of the journal, and the plural of what units make, for the error.
        beat: called now and then while files are compared.
        noted: notes of units on their inputs, in place of `before.noted()`.

    Raises:
        ConfigError: the files were in another folder, and differ from those of this one.
    """
    changed = changed_units(noted or before.noted(), places, tick=lambda _: beat())
    moved = [one for one in changed if one.moved]
    if moved:
        there = before.segments[before.units[moved[0].unit][0]].places
        raise ConfigError(
            f"{folder}: these {what} are of files in {', '.join(there)}; this run reads "
            f"{', '.join(map(os.path.realpath, places))}, where the files of {len(moved)} units "
            f"are others (first: {moved[0].name}); choose another run.output_dir or delete {folder}"
        )
    return changed


def run_units(
    results: Iterable[UnitResult],
    journal: UnitWriter,
    world: World,
    *,
    name: str,
    units: int,
    left: int,
    total: int,
    noun: str = "records",
    note: Callable[[], str] = str,
    stops: tuple[type[Exception], ...] = (),
) -> Exception | None:
    """Journal units as they are finished, and show how far the job is.

    Args:
        results: makes the units of this process.
        units: how many this process has to do.
        left: their rows.
        total: rows of the whole job.
        noun: plural of what a row is.
        note: returns what stands behind the progress.
        stops: errors that end the job early.

    Returns:
        The error that has stopped the job, or None.
    """
    from lavis.common.logger import Progress  # imports torch, which a command's help should not

    done = max(0, total - left * world.size)  # rows finished by earlier starts, about
    progress = Progress(total, name, unit=noun, done=done, shown=world.is_main)
    stop: Exception | None = None
    try:
        for number, result in enumerate(results, 1):
            journal.append(*result)
            world.beat(f"{name}: unit {number} of {units}")
            amount = min(len(result.rows) * world.size, total - progress.done)
            progress.add(amount, note())
    except stops as error:
        stop = error
    progress.close()
    return stop
