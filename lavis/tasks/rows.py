"""Files that hold a line for every row, and how many rows were scored or set aside."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lavis.common.errors import DataError
from lavis.common.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from lavis.common.storage.plan import RowReader
    from lavis.datasets.base import RecordDataset

logger = logging.getLogger(__name__)

PARQUET_ROWS = 32768  # of one row group
INTEGER_COLUMNS = ("index", "label", "prediction")
_ARROW = {"int": "int64", "float": "float64", "bool": "bool_", "text": "string"}


@dataclass
class Tally:
    """Counts of rows: `rows`, `scored`, `rejected`; reasons of rejects up to the first colon."""

    counts: Counter[str] = field(default_factory=lambda: Counter(rows=0, scored=0, rejected=0))
    reasons: Counter[str] = field(default_factory=Counter)

    def describe(self) -> dict[str, Any]:
        """Return the counts and `rejected_by_reason`, for the summary."""
        return {**self.counts, "rejected_by_reason": dict(sorted(self.reasons.items()))}


@dataclass(frozen=True)
class Results:
    """Finished rows of a data set, and where its result files go.

    Attributes:
        name: `<split>_epoch<epoch>`.
        full: also write what a reader looks at; off while training.
        model: that scored them, where it is at hand.
    """

    reader: RowReader
    dataset: RecordDataset
    folder: Path
    name: str
    full: bool = True
    model: Any = None

    @property
    def prefix(self) -> str:
        """Prefix of fixed file names: nothing for the split `test`, else `<split>_`."""
        split = self.name.split("_epoch")[0]
        return "" if split == "test" else f"{split}_"

    def path(self, file: str) -> Path:
        """Return the path of a file with a fixed name, such as `summary.json`."""
        return self.folder / f"{self.prefix}{file}"

    def score_path(self, ending: str) -> Path:
        """Return the path of a file with a row or a line for every scored row."""
        return self.folder / "result" / f"{self.name}{ending}"

    def scored(self, tally: Tally, endings: Collection[str]) -> Iterator[tuple[int, Any]]:
        """Write rows as they pass, count them, and yield number and content of the scored ones.

        The files, complete after the last row: `result/<name>` and `rejects.jsonl`.

        Args:
            endings: forms of the result: `.json`, an array, and `.jsonl`.

        Raises:
            DataError: a row of the data set is missing.
        """
        with ExitStack() as stack:
            files = {e: stack.enter_context(AtomicFile(self.score_path(e))) for e in endings}
            rejects = stack.enter_context(AtomicFile(self.path("rejects.jsonl")))
            array = JsonArray(files[".json"]) if ".json" in files else None
            lines = files.get(".jsonl")
            for row, raw in self.reader.iterate_raw():
                payload = json.loads(raw)
                tally.counts["rows"] += 1
                if "reject" in payload:
                    tally.counts["rejected"] += 1
                    tally.reasons[payload["reject"].split(":")[0]] += 1
                    rejects.write(self.reject_line(row, payload))
                    continue
                tally.counts["scored"] += 1
                if array is not None:
                    array.write([raw])
                if lines is not None:
                    lines.write(raw + b"\n")
                yield row, payload
            self.check_complete(tally.counts["rows"])
            if array is not None:
                array.close()

    def reject_line(self, row: int, payload: Mapping[str, Any]) -> bytes:
        """Return a line of `rejects.jsonl`; the row number is the line of Parquet and tar files."""
        place = payload if "file" in payload else self.dataset.source(row)
        line = {"row": row, "file": place.get("file"), "line": place.get("line", place.get("row"))}
        return json.dumps({**line, "reason": payload["reject"]}).encode() + b"\n"

    def check_complete(self, count: int) -> None:
        """Raise `DataError` unless that many rows are all of the data set."""
        total = len(self.dataset)
        if count != total:
            raise DataError(
                f"{self.name}: {total - count} of {total} rows were never scored; run "
                f"the same command again with the same run.output_dir to score them"
            )


class JsonArray:
    """One JSON array, an element a line, written from the elements' JSON text."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._between = b"[\n"

    def write(self, elements: Sequence[bytes]) -> None:
        """Append elements."""
        if elements:
            self._file.write(self._between + b",\n".join(elements))
            self._between = b",\n"

    def close(self) -> None:
        """Write the closing bracket."""
        self._file.write(b"[]\n" if self._between == b"[\n" else b"\n]\n")


class ParquetTable:
    """A Parquet file of JSON objects with plain values; lists and objects become JSON text.

    A column's type is fixed by the first row group and its name: `index`, `label` and
    `prediction` are integers, other numbers float64. A later value that does not fit becomes
    null, a later new key is left out, with one warning of either kind; the JSON lines hold all.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: list[Mapping[str, Any]] = []
        self._kinds: dict[str, str] = {}
        self._writer: Any = None
        self._warned: set[str] = set()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        self._rows += rows
        if len(self._rows) >= PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        """Write the rest and the footer; a table without rows has no columns."""
        if self._rows or self._writer is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self._kinds = _column_kinds(self._rows)
            types = [(n, getattr(pa, _ARROW[kind])()) for n, kind in self._kinds.items()]
            self._schema = pa.schema(types)
            self._writer = pq.ParquetWriter(self._file, self._schema)
        if not all(row.keys() <= self._kinds.keys() for row in self._rows):
            self._warn("keys", f"keys beyond {list(self._kinds)} are left out")
        columns = [self._column(name, kind) for name, kind in self._kinds.items()]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._rows = []

    def _column(self, name: str, kind: str) -> Any:
        import pyarrow as pa

        values = [row.get(name) for row in self._rows]
        arrow_type = self._schema.field(name).type
        try:
            return pa.array(values, type=arrow_type)
        except (pa.ArrowException, OverflowError, UnicodeError):
            fitted = [_fit(value, kind) for value in values]
            if any(a is None and b is not None for a, b in zip(fitted, values, strict=True)):
                self._warn(name, f"values of {name} that are no {kind} are null")
            return pa.array(fitted, type=arrow_type)

    def _warn(self, topic: str, text: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            logger.warning("parquet: %s", text)


def _column_kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return column name -> `int`, `float`, `bool` or `text`, in the order of first appearance."""
    types: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            types.setdefault(name, set()).add(type(value))
    return {name: _kind(name, seen - {type(None)}) for name, seen in types.items()}


def _kind(name: str, types: set[type]) -> str:
    if types == {bool}:
        return "bool"
    if types <= {int} and name in INTEGER_COLUMNS:
        return "int"
    return "float" if types and types <= {int, float} else "text"


def _fit(value: Any, kind: str) -> Any:
    """Return a value converted to a kind of column, or None."""
    if value is None:
        return None
    if kind == "text":
        text = value if isinstance(value, str) else json.dumps(value)
        return text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored
    if kind == "bool" or isinstance(value, bool):
        return value if kind == "bool" and isinstance(value, bool) else None
    if not isinstance(value, (int, float)):
        return None
    if kind == "float":
        try:
            return float(value)
        except OverflowError:  # an integer beyond float64
            return None
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
