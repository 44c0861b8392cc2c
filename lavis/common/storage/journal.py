"""Finished units of work on disk: crash-safe to write, cheap to scan, read back in data-set order.

A journal is a folder of append-only JSON-lines segments, one per process and start:

    {"journal": 2, "rank": 0, "start": 1, "places": [...], "fingerprint": {...}}      header
    [17, {"text": "...", "score": 0.25}]                 row number, payload
    [3, {"text": "...", "score": 0.75}]
    {"inputs": [[0, "a.jpg", [size, mtime, ctime], digest]]}   what the files of the unit were
    {"unit": 5, "rows": 2, "crc32": 3735928559}          commit: the two rows above are finished

A row counts once its commit line stands whole on disk and its checksum agrees, so a process killed
at any byte leaves finished units and a tail that is ignored. Segments are never appended to by a
later start. A unit that is done again counts as it was last finished, whatever the hosts' clocks
say: starts are numbered. The fingerprint is what all rows depend on, `inputs` (see
`lavis.common.storage.inputs`) are the files that only this unit's rows depend on, and
`"again": true` in a commit says that the unit must be done again by the next start. Nothing here
knows what a row means; arrays belong in the cache, their keys in rows.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lavis.common.storage.segments import (
    FORMAT,
    CommittedUnit,
    Segment,
    open_segments,
    scan_segment,
)

logger = logging.getLogger(__name__)

FSYNC_SECONDS = 5.0  # a power cut loses at most this much; a killed process loses nothing written
SEGMENT_BITS = 40  # a place is the segment's number above its offset: segments up to a terabyte
MAX_OPEN_SEGMENTS = 128  # well under the usual limit of 1024 open files


class Journal:
    """Writer of one process, and the list of what every process has finished before it started.

    Args:
        folder: made at the first unit; shared by all ranks and all starts of one job.
        fingerprint: JSON-able identity of everything the rows depend on.
        rank: only part of the segment's name.
        start: number of this start, from `finished`, which rank 0 sends to the others; None reads
            what is finished here.
        places: folders that names of inputs are relative to.

    Raises:
        ConfigError: the folder holds segments of another fingerprint.
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: Mapping[str, Any],
        rank: int = 0,
        *,
        start: int | None = None,
        places: Sequence[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self._fingerprint = dict(fingerprint)
        self._rank, self._places = rank, list(places)
        self._file: BinaryIO | None = None
        self._last_sync = time.monotonic()
        self._done: set[int] = set()
        if start is None:
            before = finished(self.folder, self._fingerprint)
            self._done = set(before.units)
            start = before.next_start
        self._start = start

    def done_units(self) -> np.ndarray:
        """Return the units finished before this start, or by this process since: sorted, int64."""
        return np.array(sorted(self._done), dtype=np.int64)

    def append(
        self,
        unit: int,
        rows: Sequence[tuple[int, Mapping[str, Any]]],
        inputs: Sequence[Any] = (),
        again: bool = False,
    ) -> None:
        """Write one finished unit; on return it survives a SIGKILL of this process.

        Args:
            rows: (row number, JSON-able payload) of every row of the unit.
            inputs: notes of `lavis.common.storage.inputs` on the unit's input files.
            again: the next start must do the unit again, whatever its inputs are then.
        """
        lines = "".join(f"[{int(row)}, {json.dumps(payload)}]\n" for row, payload in rows)
        if inputs:
            lines += json.dumps({"inputs": list(inputs)}) + "\n"
        data = lines.encode("ascii")
        commit = {"unit": int(unit), "rows": len(rows), "crc32": zlib.crc32(data)}
        if again:
            commit["again"] = True
        file = self._segment()
        file.write(data + json.dumps(commit).encode("ascii") + b"\n")
        file.flush()
        if time.monotonic() - self._last_sync >= FSYNC_SECONDS:
            self._sync()
        self._done.add(int(unit))

    def close(self) -> None:
        """Bring everything to the disk and close the segment; the journal cannot be used after."""
        if self._file is not None:
            self._sync()
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _segment(self) -> BinaryIO:
        """Return this start's segment, made at the first unit so that idle starts leave nothing."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            when = f"{self._start:06d}-{time.time_ns():020d}"  # sorted as they were begun
            name = f"{when}-rank{self._rank:05d}-{secrets.token_hex(4)}.jsonl"
            self._file = open(self.folder / name, "xb")
            header = {
                "journal": FORMAT,
                "rank": self._rank,
                "start": self._start,
                "places": self._places,
                "fingerprint": self._fingerprint,
            }
            self._file.write(json.dumps(header).encode("ascii") + b"\n")
        return self._file

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last_sync = time.monotonic()


class Noted(NamedTuple):
    """A finished unit's inputs: notes of `storage.inputs`, and their places."""

    unit: int
    notes: list[Any]
    places: list[str]


@dataclass(frozen=True)
class Finished:
    """Units that earlier starts have finished, each as it was last.

    Attributes:
        units: number -> (segment, first byte and size of its inputs' line, must be done again).
        next_start: number of the start that reads this.
    """

    segments: list[Segment]
    units: dict[int, tuple[int, int, int, bool]]
    next_start: int

    def noted(self, *, also_again: bool = False) -> Iterator[Noted]:
        """Yield notes of finished units by segment; `also_again`: with those to be done again."""
        by_segment: dict[int, list[tuple[int, int, int]]] = {}
        for unit, (number, offset, size, again) in self.units.items():
            if size and (also_again or not again):
                by_segment.setdefault(number, []).append((offset, size, unit))
        for number, lines in sorted(by_segment.items()):
            path, _, places, _ = self.segments[number]
            with open(path, "rb") as file:
                for offset, size, unit in sorted(lines):
                    file.seek(offset)
                    yield Noted(unit, json.loads(file.read(size))["inputs"], places)

    def again(self) -> list[int]:
        """Return the units that must be done again."""
        return sorted(unit for unit, (*_, again) in self.units.items() if again)


def finished(
    folder: str | Path, fingerprint: Mapping[str, Any], *, partly: bool = False
) -> Finished:
    """Return what earlier starts have finished; writes nothing.

    Args:
        partly: `fingerprint` lacks what is not known yet; see `open_segments`.

    Raises:
        ConfigError: the folder holds segments of another fingerprint.
    """
    segments = open_segments(Path(folder), fingerprint, partly=partly)
    units: dict[int, tuple[int, int, int, bool]] = {}
    for number, segment in enumerate(segments):
        for unit in scan_segment(segment.path):
            units[unit.unit] = (number, *unit.inputs, unit.again)
    return Finished(segments, units, 1 + max((one.start for one in segments), default=0))


class JournalReader:
    """Rows of all segments of a journal, each once, in data-set order.

    Scanning is linear in the bytes on disk and keeps 16 bytes a row (segment, length and offset)
    and the place of each unit. A unit that was finished twice counts as it was last finished
    (segments by number and time of their start), all its rows together: a row that it no longer
    has is gone.

    Raises:
        ConfigError: the folder holds segments of another fingerprint.
    """

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, Any]) -> None:
        self._paths = [segment.path for segment in open_segments(Path(folder), fingerprint)]
        self._table = _OffsetTable()
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        for number, path in enumerate(self._paths):
            for unit in scan_segment(path):
                self._table.add(number, unit)
        self._table.drop_superseded()
        self.units = self._table.units

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return int((self._table.lengths > 0).sum())

    def iterate(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number, payload) in ascending row number."""
        for row, raw in self.iterate_raw():
            yield row, json.loads(raw)

    def iterate_raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, the payload's JSON text as written) in ascending row number."""
        table = self._table
        for chunk in range(0, len(table.lengths), 65536):  # Python numbers of one chunk at a time
            part = slice(chunk, chunk + 65536)
            columns = (table.segments, table.offsets, table.lengths)
            for row, (segment, offset, length) in enumerate(
                zip(*(column[part].tolist() for column in columns), strict=True), chunk
            ):
                if length:
                    file = self._file(segment)
                    file.seek(offset)
                    line = file.read(length)
                    yield row, line[line.index(b",") + 2 : -2]  # "[17, {...}]\n" -> "{...}"

    def close(self) -> None:
        """Close the segments that are open."""
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _file(self, segment: int) -> BinaryIO:
        # Plain reads, not mmap: rows of one segment are scattered, and mapped pages would count
        # as this process's memory until the whole journal is resident.
        file = self._files.get(segment)
        if file is None:
            if len(self._files) >= MAX_OPEN_SEGMENTS:
                self._files.popitem(last=False)[1].close()
            file = open(self._paths[segment], "rb", buffering=0)
            self._files[segment] = file
        return file


class _OffsetTable:
    """Where each row's line is: 16 bytes a row in arrays that double when they are full."""

    def __init__(self) -> None:
        self.segments = np.zeros(0, dtype=np.uint32)
        self.lengths = np.zeros(0, dtype=np.uint32)  # bytes with the newline; 0: no such row
        self.offsets = np.zeros(0, dtype=np.int64)
        self._begins: dict[int, int] = {}  # unit -> where it begins as it was last finished
        self._superseded: list[int] = []  # where it began before

    @property
    def units(self) -> int:
        """Return the number of distinct units."""
        return len(self._begins)

    def add(self, segment: int, unit: CommittedUnit) -> None:
        """Note a unit; the rows that it shares with an earlier one are the later's."""
        if unit.unit in self._begins:
            self._superseded.append(self._begins[unit.unit])
        self._begins[unit.unit] = (segment << SEGMENT_BITS) + unit.offsets[0]
        if not unit.rows:
            return
        self._grow(max(unit.rows) + 1)
        rows = np.array(unit.rows, dtype=np.int64)
        bounds = np.array(unit.offsets, dtype=np.int64)
        self.segments[rows] = segment  # what an earlier start wrote of these rows is superseded
        self.offsets[rows] = bounds[:-1]
        self.lengths[rows] = np.diff(bounds)

    def drop_superseded(self) -> None:
        """Forget rows of units that were finished again without them; called after the last unit.

        The lines of a unit stand together, so a row is of the last unit that begins before it.
        """
        if not self._superseded:
            return
        begins = np.array(sorted([*self._begins.values(), *self._superseded]), dtype=np.int64)
        places = (self.segments.astype(np.int64) << SEGMENT_BITS) + self.offsets
        unit_begins = begins[np.searchsorted(begins, places, side="right") - 1]
        self.lengths[np.isin(unit_begins, self._superseded)] = 0

    def _grow(self, size: int) -> None:
        if size > len(self.lengths):
            size = max(size, 2 * len(self.lengths), 1024)
            for name in ("segments", "lengths", "offsets"):
                old = getattr(self, name)
                new = np.zeros(size, dtype=old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)
