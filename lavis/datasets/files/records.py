"""Rows of record files of any size: located by offset, parsed one at a time, never all in memory.

Formats: `.jsonl` (also `.json` holding one list), the same as `.gz` or `.zst` (unpacked once into
a cache folder), `.parquet`, WebDataset `.tar`, and img2dataset folders. An index takes 8 to 40
bytes a row. Every process can read every row.
"""

from __future__ import annotations

import abc
import bisect
import hashlib
import json
import logging
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lavis.common.errors import DataError, RecordError, printable, record_errors
from lavis.common.storage.content import content_digest
from lavis.common.storage.inputs import Input, input_digest
from lavis.datasets.files.images import ImageFile
from lavis.datasets.files.json_lists import check_json, unique_keys
from lavis.datasets.files.json_values import RowConverter

logger = logging.getLogger(__name__)

_CHUNK = 1 << 24  # bytes scanned at a time for line ends
_BOM = b"\xef\xbb\xbf"


class RecordFile(abc.ABC):
    """Rows of one file or folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, row: int) -> dict[str, Any]:
        """Return one record; raises `RecordError` for a malformed one."""

    def image(self, row: int) -> ImageFile | None:
        """Return the image stored with the row, or None where the record names a file."""
        return None

    def place(self, row: int) -> dict[str, Any]:
        """Return where a row is: `{"file", "line"}` (lines from 1) or `{"file", "row"}`."""
        return {"file": printable(self.path), "row": row}

    def identity(self) -> dict[str, Any]:
        """Return name and content of the file, without what `inputs` covers."""
        name = printable(os.path.basename(os.path.normpath(self.path)))
        return {"name": name, "content": content_digest(self.path)}

    def inputs(self, row: int) -> list[Input]:
        """Return what a row, and its image inside the file, is read from beside `identity`."""
        return []


def parse_object(text: bytes) -> dict[str, Any]:
    """Return one JSON object.

    Raises:
        RecordError: not JSON in UTF-8, not an object, a key twice, or text that no tokenizer
            accepts.
    """
    with record_errors("malformed line"):
        try:
            record = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
        except json.JSONDecodeError as error:
            at = f"{error.msg} at character {error.pos + 1}"
            raise RecordError(f"malformed line: {at}") from None
        check_json(record, text)
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise RecordError(f"malformed line: a JSON object was expected, not {kind}")
    return record


class JsonLinesFile(RecordFile):
    """Lines of a plain file, read through a memory map.

    Args:
        path: name for messages and fingerprints.
        data_path: the plain file that is read, where `path` itself is compressed.
    """

    def __init__(self, path: str, data_path: str | None = None) -> None:
        super().__init__(path)
        self._data_path = data_path or path
        self._starts, self._ends, self._lines = _index_lines(self._data_path)
        self._map: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # a memory map cannot travel to another process

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, row: int) -> dict[str, Any]:
        return parse_object(self.read_line(row))

    def read_line(self, row: int) -> bytes:
        """Return the bytes of one line, without its end."""
        if self._map is None:
            with open(self._data_path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map[self._starts[row] : self._ends[row]]

    def place(self, row: int) -> dict[str, Any]:
        line = row + 1 if self._lines is None else int(self._lines[row])
        return {"file": printable(self.path), "line": line}


def _index_lines(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return start and end offsets of non-blank lines, and their numbers from 1.

    The numbers are None where no line is blank, so that row + 1 is the line.
    """
    size = os.path.getsize(path)
    parts: list[np.ndarray] = []
    with open(path, "rb") as file:
        first = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        file.seek(0)
        position = 0
        while chunk := file.read(_CHUNK):
            parts.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + position)
            position += len(chunk)
        ends = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        if size > first and (not len(ends) or ends[-1] != size - 1):
            ends = np.append(ends, size)  # the last line has no end mark
        starts = np.empty_like(ends)
        if len(ends):
            starts[0] = first
            starts[1:] = ends[:-1] + 1
        keep = np.ones(len(ends), dtype=bool)
        for line in np.flatnonzero(ends - starts < 16):  # a longer blank line counts as malformed
            file.seek(int(starts[line]))
            keep[line] = bool(file.read(int(ends[line] - starts[line])).strip())
    lines = None if keep.all() else np.flatnonzero(keep) + 1
    return starts[keep], ends[keep], lines


class ParquetFile(RecordFile):
    """Rows of a Parquet file, read by row group.

    Columns that mix words and id lists (Parquet has no such type) are JSON text. Other types are
    converted as in `json_values`; columns of bytes are not read. The last two row groups stay
    decoded, so reading in order costs one pass; write groups of a few thousand rows.
    """

    _KEPT_GROUPS = 2

    def __init__(self, path: str) -> None:
        super().__init__(path)
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                metadata, schema = file.metadata, file.schema_arrow
        except Exception as error:  # pyarrow raises several unrelated types
            raise DataError(f"{path}: not a Parquet file: {error}") from None
        self._converter = RowConverter(schema, path)
        if self._converter.left_out:
            names = ", ".join(self._converter.left_out)
            logger.warning("%s: bytes are left out of the records: %s", path, names)
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._first = [0, *np.cumsum(counts).tolist()]
        self._groups: dict[int, Any] = {}
        self._file: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": {}, "_file": None}

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, row: int) -> dict[str, Any]:
        group = bisect.bisect_right(self._first, row) - 1
        table = self._groups.pop(group, None)
        if table is None:
            table = self._read_group(group)
        self._groups[group] = table  # the most recently used is last
        while len(self._groups) > self._KEPT_GROUPS:
            del self._groups[next(iter(self._groups))]
        with record_errors("malformed row"):
            rows = table.slice(row - self._first[group], 1).to_pylist()
            record = self._converter.record(rows[0] if rows else {})
            return {name: _from_column(value) for name, value in record.items()}

    def _read_group(self, group: int) -> Any:
        import pyarrow.parquet as pq

        if self._file is None:
            self._file = pq.ParquetFile(self.path)
        try:
            return self._file.read_row_group(group, columns=list(self._converter.names()))
        except Exception as error:  # pyarrow raises several unrelated types
            raise RecordError(f"malformed line: row group {group}: {str(error)[:100]}") from None


def _from_column(value: Any) -> Any:
    """Return the list or object that a text holds; any other value as it is."""
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return value
    try:  # NaN: JSON has none
        parsed = json.loads(value, parse_constant=lambda _: None, object_pairs_hook=unique_keys)
    except RecordError:
        raise
    except ValueError:
        return value
    check_json(parsed, value.encode("utf-8"))
    return parsed


class RecordStore:
    """Rows of many files as one sequence, in the order of the files; see `formats.open_records`."""

    def __init__(self, files: Sequence[RecordFile]) -> None:
        self.files = list(files)
        self._first = [0, *np.cumsum([len(f) for f in self.files]).tolist()]

    def __len__(self) -> int:
        return int(self._first[-1])

    def find(self, index: int) -> tuple[RecordFile, int]:
        """Return the file of a row and the row's number in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        file = bisect.bisect_right(self._first, index) - 1
        return self.files[file], index - int(self._first[file])

    def read(self, index: int) -> dict[str, Any]:
        """Return one record; raises `RecordError` for a malformed one."""
        file, row = self.find(index)
        with record_errors("malformed record"):
            return file.read(row)

    def image(self, index: int) -> ImageFile | None:
        """Return the image stored with the row, or None where the record names a file."""
        file, row = self.find(index)
        with record_errors("broken image", decoding=True):
            return file.image(row)

    def place(self, index: int) -> dict[str, Any]:
        """Return the file of a row, and its line or row there."""
        file, row = self.find(index)
        return file.place(row)

    def identity(self) -> list[dict[str, Any]]:
        """Return name and content of every file, without what `inputs` covers."""
        return [file.identity() for file in self.files]

    def inputs(self, index: int) -> list[Input]:
        """Return the files, or parts of files, that a row is read from beside `identity`."""
        file, row = self.find(index)
        return file.inputs(row)

    def folder(self) -> str:
        """Return the folder that all files lie in, absolute."""
        folders = [os.path.dirname(os.path.abspath(file.path)) for file in self.files]
        return os.path.commonpath(folders) if folders else os.getcwd()

    def whole_identity(self) -> list[dict[str, Any]]:
        """Return `identity` with the content of everything that rows are read from."""
        identities = []
        for file in self.files:
            digest, parts = hashlib.blake2b(digest_size=16), False
            for row in range(len(file)):
                for one in file.inputs(row):
                    digest.update(repr((os.path.basename(one.path), input_digest(one))).encode())
                    parts = True
            rows = {"rows": digest.hexdigest()} if parts else {}
            identities.append({**file.identity(), **rows})
        return identities
