"""Arrays by key in few files: append-only segments, memory-mapped to read, safe to kill.

For millions of arrays of one width, such as hidden states of texts, where one file each would be
too many. Each process and start writes one segment, two files:

    <name>.rows    rows of all its arrays, one after another
    <name>.index   a JSON line, then records of 40 bytes: key, first row, rows, checksums

An array counts once its record stands whole in the index; its rows were written before. A record
without rows says that everything before it has reached the disk, so that after a power cut only
what follows the last one is compared with its checksum. A later start never appends to a segment;
of two arrays with one key, either is right.

Shapes: n arrays of some rows each, W values a row.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lavis.common.errors import ConfigError

logger = logging.getLogger(__name__)

FORMAT = 1
SYNC_SECONDS = 5.0  # a power cut loses at most this much; a killed process loses nothing written
RECORD = np.dtype(
    [("key", "S16"), ("first", "<i8"), ("rows", "<i8"), ("crc", "<u4"), ("own_crc", "<u4")]
)
_CHECKED = RECORD.itemsize - 4  # bytes of a record that `own_crc` covers
_ENTRY = np.dtype([("first", "<i8"), ("rows", "<i4"), ("segment", "<u4")])


def array_key(content: bytes) -> bytes:
    """Return the 16-byte key of an array from its identity."""
    return hashlib.blake2b(content, digest_size=16).digest()


class ArrayShards:
    """Arrays `(rows, width)` by 16-byte key, in a folder that processes share.

    Keeps 32 bytes an array in memory. Picklable; a copy in another process reads what was there
    when it was made or refreshed.

    Args:
        folder: made with the first array.
        width: W.
        dtype: numpy type of the values.
        fingerprint: JSON-able identity of everything the arrays depend on.
        rank: only part of the segment's name.

    Raises:
        ConfigError: the folder holds arrays of another width, type or fingerprint.
    """

    def __init__(
        self, folder: str | Path, *, width: int, dtype: Any, fingerprint: Any, rank: int = 0
    ) -> None:
        self.folder = Path(folder)
        self.width, self.dtype = width, np.dtype(dtype)
        self._header = {
            "shards": FORMAT,
            "width": width,
            "dtype": self.dtype.str,
            "fingerprint": json.loads(json.dumps(fingerprint)),
        }
        self._rank = rank
        self._writer: _Writer | None = None
        self._reset()
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        state = {k: v for k, v in self.__dict__.items() if k != "_maps"}
        return {**state, "_writer": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _maps={})

    def __len__(self) -> int:
        """Return the number of arrays that can be read."""
        return len(self._entries)

    def refresh(self) -> None:
        """Look for arrays written since, by this process or by others."""
        if self._writer is not None:
            self._writer.sync()
        for path in sorted(self.folder.glob("*.index")):
            if path not in self._numbers:
                if not self._accepts(path):
                    continue
                self._numbers[path] = len(self._read)
                self._read.append(0)
            number = self._numbers[path]
            records, end = _new_records(path, self._read[number], self.width * self.dtype.itemsize)
            if end > self._read[number]:
                self._read[number] = end
                self._maps.pop(number, None)  # the file has grown
                self._add(records, number)
        self._merge()

    def has(self, keys: Iterable[bytes]) -> np.ndarray:
        """Return whether arrays of keys can be read, `(n,)` bool."""
        return self._find(keys) >= 0

    def get(self, key: bytes) -> np.ndarray | None:
        """Return an array `(rows, width)`, a read-only view of the file, or None."""
        place = int(self._find([key])[0])
        if place < 0:
            return None
        entry = self._entries[place]
        start = int(entry["first"])
        return self._map(int(entry["segment"]))[start : start + int(entry["rows"])]

    def put(self, arrays: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Write arrays under their keys; on return they survive a SIGKILL of this process.

        They can be read after `refresh`.

        Args:
            arrays: (key, `(rows, width)` with one row or more).
        """
        if self._writer is None:
            self._writer = _Writer(self.folder, self._header, self._rank)
        try:
            for key, array in arrays:
                assert array.shape[1:] == (self.width,) and len(array), array.shape
                self._writer.add(key, np.ascontiguousarray(array, dtype=self.dtype))
            self._writer.commit()
        except BaseException:  # a full disk: where the next array would begin is not known
            self._writer.abandon()
            self._writer = None
            raise

    def close(self) -> None:
        """Bring everything written to the disk; a later `put` begins another segment."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _reset(self) -> None:
        self._numbers: dict[Path, int] = {}
        self._read: list[int] = []  # of each segment, bytes of its index that were read
        self._keys = np.zeros(0, dtype="S16")  # sorted, each once
        self._entries = np.zeros(0, dtype=_ENTRY)  # of the keys, in their order
        self._fresh: list[tuple[np.ndarray, np.ndarray]] = []
        self._maps: dict[int, np.ndarray] = {}

    def _accepts(self, path: Path) -> bool:
        """Return False for an index without header (killed); `ConfigError` for another's."""
        with open(path, "rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            return False
        try:
            header = json.loads(line)
        except ValueError:
            header = None
        if header != self._header:
            raise ConfigError(
                f"{path}: holds arrays of another origin ({line[:200]!r}, expected "
                f"{self._header}); delete {self.folder}"
            )
        return True

    def _add(self, records: np.ndarray, segment: int) -> None:
        fresh = np.zeros(len(records), dtype=_ENTRY)
        fresh["first"], fresh["rows"] = records["first"], records["rows"]
        fresh["segment"] = segment
        self._fresh.append((records["key"], fresh))

    def _merge(self) -> None:
        if not self._fresh:
            return
        keys, entries = zip((self._keys, self._entries), *self._fresh, strict=True)
        self._fresh = []
        # the first of two arrays with one key stays
        self._keys, places = np.unique(np.concatenate(keys), return_index=True)
        self._entries = np.concatenate(entries)[places]

    def _find(self, keys: Iterable[bytes]) -> np.ndarray:
        """Return places of keys among the entries, `(n,)`, -1 where they are not."""
        wanted = np.frombuffer(b"".join(keys), dtype="S16")
        if not len(self._entries):
            return np.full(len(wanted), -1)
        places = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.where(self._keys[places] == wanted, places, -1)

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            index = next(path for path, n in self._numbers.items() if n == number)
            path = index.with_suffix(".rows")
            whole = path.stat().st_size // (self.width * self.dtype.itemsize)  # a tail may be torn
            shape = (whole, self.width)
            self._maps[number] = np.memmap(path, dtype=self.dtype, mode="r", shape=shape)
        return self._maps[number]


class _Writer:
    """One segment, from its first array to its close."""

    def __init__(self, folder: Path, header: dict[str, Any], rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-rank{rank:05d}-{secrets.token_hex(4)}"
        self._rows: BinaryIO = open(folder / f"{name}.rows", "xb")
        self._index: BinaryIO = open(folder / f"{name}.index", "xb")
        self._index.write(json.dumps(header).encode("ascii") + b"\n")
        self._next = 0
        self._pending: list[bytes] = []
        self._last_sync = time.monotonic()

    def add(self, key: bytes, array: np.ndarray) -> None:
        """Write the rows of an array; it counts after `commit`."""
        self._rows.write(array.data)
        self._pending.append(_record(key, self._next, len(array), zlib.crc32(array.data)))
        self._next += len(array)

    def commit(self) -> None:
        """Hand rows to the system, then their records."""
        self._rows.flush()
        self._index.write(b"".join(self._pending))
        self._pending = []
        self._index.flush()
        if time.monotonic() - self._last_sync >= SYNC_SECONDS:
            self.sync()

    def close(self) -> None:
        """Bring everything to the disk."""
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in (self._rows, self._index):
            try:
                file.close()
            except OSError as error:  # what was buffered cannot be written; it does not count
                logger.warning("%s: %s", file.name, error)

    def sync(self) -> None:
        """Bring everything to the disk, and note in the index that it is there."""
        os.fsync(self._rows.fileno())
        self._index.write(_record(bytes(16), self._next, 0, 0))
        self._index.flush()
        os.fsync(self._index.fileno())
        self._last_sync = time.monotonic()


def _record(key: bytes, first: int, rows: int, crc: int) -> bytes:
    record = np.zeros(1, dtype=RECORD)
    record["key"], record["first"], record["rows"], record["crc"] = key, first, rows, crc
    record["own_crc"] = zlib.crc32(record.tobytes()[:_CHECKED])
    return record.tobytes()


def _new_records(path: Path, start: int, row_bytes: int) -> tuple[np.ndarray, int]:
    """Return an index's valid records from byte `start` on (0: the first), and the next start."""
    with open(path, "rb") as file:
        if start:
            file.seek(start)
        else:
            start = len(file.readline())
        data = file.read()
    count = len(data) // RECORD.itemsize
    records = np.frombuffer(data, dtype=RECORD, count=count)
    rows_path = path.with_suffix(".rows")
    size = rows_path.stat().st_size if rows_path.is_file() else 0
    inside = (records["first"] + records["rows"]) * row_bytes <= size
    synced = np.flatnonzero((records["rows"] == 0) & inside)
    sure = int(synced[-1]) + 1 if len(synced) else 0
    good = (records["rows"] > 0) & inside
    if sure < count:
        good[sure:] &= _whole(records[sure:], good[sure:], rows_path, row_bytes)
    if (lost := count - int(good.sum()) - len(synced)) > 0:
        logger.warning("%s: passed over %d damaged arrays", path, lost)
    return records[good], start + count * RECORD.itemsize


def _whole(records: np.ndarray, wanted: np.ndarray, path: Path, row_bytes: int) -> np.ndarray:
    """Return which records and their rows agree with their checksums."""
    good = np.zeros(len(records), dtype=bool)
    raw = records.tobytes()
    if not wanted.any():
        return good
    with open(path, "rb") as file:
        for place in np.flatnonzero(wanted).tolist():
            record = records[place]
            begin = place * RECORD.itemsize
            if zlib.crc32(raw[begin : begin + _CHECKED]) != record["own_crc"]:
                continue
            file.seek(int(record["first"]) * row_bytes)
            rows = file.read(int(record["rows"]) * row_bytes)
            good[place] = zlib.crc32(rows) == record["crc"]
    return good
