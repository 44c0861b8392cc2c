"""Finished units of work on disk: crash-safe to write, cheap to scan, read back in data-set order.

A journal is a folder of append-only JSON-lines segments, one per process and start:

    {"journal": 1, "rank": 0, "fingerprint": {...}}      header
    [17, {"text": "...", "score": 0.25}]                 row number, payload
    [3, {"text": "...", "score": 0.75}]
    {"unit": 5, "rows": 2, "crc32": 3735928559}          commit: the two rows above are finished

A row counts once its commit line stands whole on disk and its checksum agrees, so a process killed
at any byte leaves finished units and a tail that nobody reads. Segments are never appended to by a
later start. Nothing here knows what a row means; arrays belong in the cache, their keys in rows.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from lavis.common.errors import ConfigError

logger = logging.getLogger(__name__)

FORMAT = 1
FSYNC_SECONDS = 5.0  # a power cut loses at most this much; a killed process loses nothing written
MAX_OPEN_SEGMENTS = 128  # well under the usual limit of 1024 open files


class CommittedUnit(NamedTuple):
    """One finished unit: its number, and where the lines of its rows begin and end."""

    unit: int
    rows: list[int]
    offsets: list[int]  # bytes from the start of the segment, one more than rows


class Journal:
    """Writer of one process, and the list of what every process has finished before it started.

    Args:
        folder: made when it does not exist; shared by all ranks and all starts of one job.
        fingerprint: JSON-able identity of everything the rows depend on.
        rank: only part of the segment's name.

    Raises:
        ConfigError: the folder holds segments of another fingerprint.
    """

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, Any], rank: int = 0) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._fingerprint = dict(fingerprint)
        self._rank = rank
        self._file: BinaryIO | None = None
        self._last_sync = time.monotonic()
        self._done: set[int] = set()
        for path in open_segments(self.folder, self._fingerprint):
            self._done.update(unit.unit for unit in scan_segment(path))

    def done(self, unit: int) -> bool:
        """Return whether the unit was finished before this start, or by this process since."""
        return int(unit) in self._done

    def done_units(self) -> np.ndarray:
        """Return the numbers of all finished units, sorted, int64."""
        return np.array(sorted(self._done), dtype=np.int64)

    def append(self, unit: int, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Write one finished unit; on return it survives a SIGKILL of this process.

        Args:
            unit: number of the unit in the plan.
            rows: (row number, JSON-able payload) of every row of the unit.
        """
        lines = "".join(f"[{int(row)}, {json.dumps(payload)}]\n" for row, payload in rows)
        data = lines.encode("ascii")
        commit = {"unit": int(unit), "rows": len(rows), "crc32": zlib.crc32(data)}
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
            name = f"{time.time_ns():020d}-rank{self._rank:05d}-{secrets.token_hex(4)}.jsonl"
            self._file = open(self.folder / name, "xb")
            header = {"journal": FORMAT, "rank": self._rank, "fingerprint": self._fingerprint}
            self._file.write(json.dumps(header).encode("ascii") + b"\n")
        return self._file

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._last_sync = time.monotonic()


class JournalReader:
    """Rows of all segments of a journal, each once, in data-set order.

    Scanning is linear in the bytes on disk and keeps 16 bytes a row: segment, length and offset.
    A unit that was finished twice counts as it was first finished (segments by time of start).

    Raises:
        ConfigError: the folder holds segments of another fingerprint.
    """

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, Any]) -> None:
        self._paths = open_segments(Path(folder), dict(fingerprint))
        self._table = _OffsetTable()
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        seen: set[int] = set()
        for number, path in enumerate(self._paths):
            for unit in scan_segment(path):
                if unit.unit not in seen:
                    seen.add(unit.unit)
                    self._table.add(number, unit)
        self.units = len(seen)

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return int((self._table.lengths > 0).sum())

    def rows(self) -> np.ndarray:
        """Return the row numbers that are there, ascending, int64."""
        return np.flatnonzero(self._table.lengths > 0)

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

    def add(self, segment: int, unit: CommittedUnit) -> None:
        if not unit.rows:
            return
        self._grow(max(unit.rows) + 1)
        rows = np.array(unit.rows, dtype=np.int64)
        bounds = np.array(unit.offsets, dtype=np.int64)
        new = self.lengths[rows] == 0
        rows = rows[new]
        self.segments[rows] = segment
        self.offsets[rows] = bounds[:-1][new]
        self.lengths[rows] = np.diff(bounds)[new]

    def _grow(self, size: int) -> None:
        if size > len(self.lengths):
            size = max(size, 2 * len(self.lengths), 1024)
            for name in ("segments", "lengths", "offsets"):
                old = getattr(self, name)
                new = np.zeros(size, dtype=old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)


def scan_segment(path: Path) -> Iterator[CommittedUnit]:
    """Yield the finished units of one segment in the order in which they were written.

    Lines that no whole commit line with the right count and checksum closes are passed over.
    """
    with open(path, "rb", buffering=1 << 20) as file:
        offset = len(file.readline())  # the header, checked by `open_segments`
        rows: list[int] = []
        offsets: list[int] = []
        crc = 0
        for line in file:
            if not line.endswith(b"\n"):
                break  # torn tail
            if line.startswith(b"["):
                comma = line.find(b",")
                if line[1:comma].isdigit():
                    rows.append(int(line[1:comma]))
                    offsets.append(offset)
                crc = zlib.crc32(line, crc)
            else:
                unit = _commit(line, len(rows), crc)
                if unit is not None:
                    yield CommittedUnit(unit, rows, [*offsets, offset])
                else:
                    logger.warning("%s: passed over a damaged unit before byte %d", path, offset)
                rows, offsets, crc = [], [], 0
            offset += len(line)


def open_segments(folder: Path, fingerprint: Mapping[str, Any]) -> list[Path]:
    """Return the folder's segments by time of start, after checking whose they are.

    Raises:
        ConfigError: a segment carries another fingerprint; the message names what differs.
    """
    ours = json.loads(json.dumps(dict(fingerprint)))
    paths = []
    for path in sorted(folder.glob("*.jsonl")):
        with open(path, "rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            continue  # killed while writing its header: holds nothing
        theirs = _header(line)
        if theirs != ours:
            found = "it has no readable header" if theirs is None else _difference(theirs, ours)
            raise ConfigError(
                f"{folder}: this journal belongs to another job ({found}); choose another "
                f"run.output_dir or delete {folder}"
            )
        paths.append(path)
    return paths


def _header(line: bytes) -> dict[str, Any] | None:
    try:
        header = json.loads(line)
    except ValueError:
        return None
    if not isinstance(header, dict) or header.get("journal") != FORMAT:
        return None
    return header.get("fingerprint")


def _commit(line: bytes, rows: int, crc: int) -> int | None:
    """Return the unit's number where the commit line agrees with the rows before it."""
    try:
        commit = json.loads(line)
    except ValueError:
        return None
    if not isinstance(commit, dict) or commit.get("rows") != rows or commit.get("crc32") != crc:
        return None
    unit = commit.get("unit")
    return unit if isinstance(unit, int) else None


def _difference(theirs: Mapping[str, Any], ours: Mapping[str, Any], most: int = 5) -> str:
    """Say which keys differ, with both values: `run.seed is 1 there and 2 here`."""
    old, new = dict(_flatten(theirs)), dict(_flatten(ours))
    missing = object()
    parts = []
    for key in sorted({*old, *new}):
        there, here = old.get(key, missing), new.get(key, missing)
        if there != here:
            texts = ["absent" if v is missing else json.dumps(v)[:100] for v in (there, here)]
            parts.append(f"{key} is {texts[0]} there and {texts[1]} here")
    more = f", and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def _flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
