"""Rows of Arrow files through a memory map: random access, nothing held in memory.

Hugging Face `datasets` keeps its tables in this form. Parquet and CSV, which have no random access
to rows, are converted once, batch by batch, into a cache folder.
"""

from __future__ import annotations

import bisect
import csv
import gzip
import io
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import (
    REFUSALS,
    DataError,
    RecordError,
    brief,
    data_errors,
    printable,
    record_errors,
)
from lavis.common.storage.content import file_state
from lavis.datasets.files.built import built_once, cache_folder, digest_of, file_identity
from lavis.datasets.files.folders import RECORDS, Skipped, list_folder, open_folder
from lavis.datasets.files.formats import expand_paths, open_file
from lavis.datasets.files.images import ImageFile
from lavis.datasets.files.json_values import RowConverter
from lavis.datasets.files.records import RecordFile, RecordStore

logger = logging.getLogger(__name__)

VERSION = 1  # of what is written into the cache
_STATE = "state.json"
TABLES = (".arrow", ".parquet", ".pq", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
_LINE, _REASON = "__line__", "__reason__"  # columns that a CSV file's rows get
_ROWS = 2000  # of a batch that is written; one row's strings need no more than its batch's header


class ArrowFile(RecordFile):
    """Rows of an Arrow file (stream or file format).

    Args:
        path: what messages and fingerprints name.
        data_path: the Arrow file, where `path` itself has another form.
        image_key: column that may hold images: bytes, or `{bytes, path}` as `datasets` keeps
            them. They are read by their place in the file.

    Attributes:
        columns: names of the columns.

    Raises:
        DataError: not an Arrow file.
    """

    def __init__(
        self, path: str, data_path: str | None = None, *, image_key: str | None = None
    ) -> None:
        import pyarrow as pa

        super().__init__(path)
        self._data_path = data_path or path
        self._state = file_state(path)
        self._batches: list[Any] | None = None
        self._first = [0]
        for batch in self.batches:
            self._first.append(self._first[-1] + batch.num_rows)
        names = [] if not self.batches else self.batches[0].schema.names
        self.columns = [name for name in names if name not in (_LINE, _REASON)]
        self._has_lines = _LINE in names
        self._image_column = image_key if image_key and self._holds_bytes(image_key) else None
        fields = list(self.batches[0].schema) if self.batches else []
        schema = pa.schema([field for field in fields if field.name != self._image_column])
        self._converter = RowConverter(schema, path)
        if self._converter.left_out:
            left_out = ", ".join(self._converter.left_out)
            logger.warning("%s: bytes are left out of the records: %s", path, left_out)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None}  # a memory map cannot travel

    @property
    def batches(self) -> list[Any]:
        """The record batches of pyarrow, mapped and not read."""
        if self._batches is None:
            self._batches = self._map()
        return self._batches

    def _map(self) -> list[Any]:
        import pyarrow as pa

        try:
            source = pa.memory_map(self._data_path)
            self._start, self._size = (source.read_buffer(1).address, source.size())
            source.seek(0)
            if source.read(6) == b"ARROW1":
                table = pa.ipc.open_file(source)
                return [table.get_batch(number) for number in range(table.num_record_batches)]
            source.seek(0)
            return list(pa.ipc.open_stream(source))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: not an Arrow file: {error}") from None

    def _holds_bytes(self, name: str) -> bool:
        import pyarrow as pa

        if name not in self.columns:
            return False
        kind = self.batches[0].schema.field(name).type
        if pa.types.is_struct(kind):
            kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def __len__(self) -> int:
        return self._first[-1]

    def read(self, row: int) -> dict[str, Any]:
        """Return the row without nulls and without the bytes of its image."""
        batch, place = self._find(row)
        record = {}
        with record_errors("malformed row"):
            for name in self.columns:
                column = batch.column(name)
                if name == self._image_column:
                    value = self._image_name(column, place)
                else:
                    value = self._converter.value(name, column[place].as_py())
                if value is not None:
                    record[name] = value
        if self._has_lines and (reason := batch.column(_REASON)[place].as_py()):
            raise RecordError(reason)
        return record

    def image(self, row: int) -> ImageFile | None:
        """Return where in the file a row's image is, or None where the row holds none."""
        if self._image_column is None:
            return None
        import pyarrow as pa

        batch, place = self._find(row)
        column = batch.column(self._image_column)
        if pa.types.is_struct(column.type) and column[place].is_valid:
            column = column.field("bytes")
        if not column[place].is_valid:
            return None
        _, offsets, content = column.buffers()
        wide = pa.types.is_large_binary(column.type)
        ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[column.offset + place :]
        begin, size = int(ends[0]), int(ends[1] - ends[0])
        offset = content.address - self._start + begin
        if not 0 <= offset <= self._size - size:
            raise RecordError(f"broken image: {self.path} is compressed; write it uncompressed")
        name = f"{os.path.basename(self.path)}#{row}"
        state = self._state
        return ImageFile(
            name, self._data_path, size, state.mtime_ns, offset, ctime_ns=state.ctime_ns
        )

    @staticmethod
    def _image_name(column: Any, place: int) -> str | None:
        import pyarrow as pa

        cell = column[place]
        if not isinstance(cell, pa.StructScalar) or not cell.is_valid or "path" not in cell:
            return None
        return cell["path"].as_py()

    def place(self, row: int) -> dict[str, Any]:
        if not self._has_lines:
            return super().place(row)
        batch, place = self._find(row)
        return {"file": self.path, "line": batch.column(_LINE)[place].as_py()}

    def _find(self, row: int) -> tuple[Any, int]:
        number = bisect.bisect_right(self._first, row) - 1
        return self.batches[number], row - self._first[number]


def open_tables(
    paths: Sequence[str], *, cache_dir: str | None = None, image_key: str | None = None
) -> RecordStore:
    """Return the rows of files of any form, each reachable at once.

    Args:
        paths: files, patterns, folders of images or shards, and folders of Hugging Face
            `save_to_disk` or of Parquet files.
        cache_dir: where Parquet, CSV and compressed files are written anew.
        image_key: column of tables that may hold images.

    Raises:
        DataError: a path that matches nothing, or a form that cannot be read.
    """
    files: list[RecordFile] = []

    def open_one(path: str) -> list[RecordFile]:
        if path.lower().endswith(TABLES):
            return [open_table(path, cache_dir=cache_dir, image_key=image_key)]
        return open_file(path, cache_dir)

    for path in expand_paths(paths):
        if not os.path.isdir(path):
            files += open_one(path)
        elif is_saved(path):
            files += [file for name in tables_in(path) for file in open_one(name)]
        else:
            files += open_folder(path, open_one, (*RECORDS, *TABLES))
    return RecordStore(files)


def open_table(
    path: str, *, cache_dir: str | None = None, image_key: str | None = None
) -> ArrowFile:
    """Return the rows of one Arrow, Parquet, CSV or TSV file."""
    if path.lower().endswith(".arrow"):
        return ArrowFile(path, image_key=image_key)
    target = cache_folder(cache_dir) / f"{digest_of([VERSION, *file_identity(path)])}.arrow"
    return ArrowFile(path, str(_written(path, target)), image_key=image_key)


def is_saved(folder: str) -> bool:
    """Return whether a folder was written by `save_to_disk` of Hugging Face `datasets`."""
    return os.path.isfile(os.path.join(folder, _STATE))


def tables_in(folder: str) -> list[str]:
    """Return the tables of a folder, or none: those of `save_to_disk`, else Parquet files.

    `datasets` caches its own results beside them; only files that `state.json` lists are data.
    """
    state = Path(folder) / _STATE
    if is_saved(folder):
        try:
            listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            return [str(state.parent / entry["filename"]) for entry in listed]
        except REFUSALS as error:
            raise DataError(
                f"{state}: not the list of files that `save_to_disk` writes: {brief(error)}"
            ) from None
    return list_folder(folder, (".parquet", ".pq"), Skipped()).files


def _written(path: str, target: Path) -> Path:
    import pyarrow as pa

    def build(temporary: Path) -> None:
        logger.info("writing the rows of %s to %s, once", path, target)
        is_csv = path.lower().removesuffix(".gz").endswith((".csv", ".tsv"))
        batches = _csv_batches(path) if is_csv else _parquet_batches(path)
        with data_errors(f"{path}: cannot be read", pa.ArrowException, csv.Error):
            if not write_batches(temporary, batches):
                raise DataError(f"{path}: no rows")

    return built_once(target, build)


def write_batches(path: Path, batches: Iterator[Any]) -> int:
    """Write pyarrow's record batches as an Arrow stream and return how many rows they have."""
    import pyarrow as pa

    count = 0
    first = next(batches, None)
    if first is not None:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
            for batch in itertools.chain([first], batches):
                stream.write_batch(batch)
                count += batch.num_rows
    return count


def _parquet_batches(path: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            if batch.num_rows:
                yield batch


def _csv_batches(path: str) -> Iterator[Any]:
    """Yield the rows of a CSV file as text columns, with line numbers and why a row is bad."""
    import pyarrow as pa

    name = path.lower()
    delimiter = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
    with gzip.open(path, "rb") if name.endswith(".gz") else open(path, "rb") as raw:
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter)
        header = next(reader, None) or []
        if any(printable(column) != column for column in header):
            raise DataError(f"{path}: its first line is not UTF-8")
        if len(set(header)) != len(header):
            raise DataError(f"{path}: two columns have one name; rename one in the first line")
        columns = [(column, pa.string()) for column in header]
        schema = pa.schema([*columns, (_LINE, pa.int64()), (_REASON, pa.string())])
        rows = (_csv_row(cells, len(header), reader.line_num) for cells in reader if cells)
        while batch := list(itertools.islice(rows, _ROWS)):
            yield pa.record_batch([list(c) for c in zip(*batch, strict=True)], schema=schema)


def _csv_row(cells: list[str], columns: int, line: int) -> list[Any]:
    """Return a row's cells, its line and why it is bad, whose cells are left empty."""
    reason = None
    if len(cells) != columns:
        reason = f"malformed row: {len(cells)} cells, but {columns} columns"
    elif any(printable(cell) != cell for cell in cells):
        reason = "malformed row: text that is not UTF-8"
    return [*([""] * columns if reason else cells), line, reason]
