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
    from lavis.datasets.base import RecordDataset
    from lavis.tasks.base import RowReader


@dataclass
class Tally:
    """What became of a data set's rows.

    Attributes:
        counts: `rows`, `scored`, `rejected`.
        reasons: of rejects, up to the first colon.
    """

    counts: Counter[str] = field(default_factory=lambda: Counter(rows=0, scored=0, rejected=0))
    reasons: Counter[str] = field(default_factory=Counter)

    def describe(self) -> dict[str, Any]:
        """Return the counts and `rejected_by_reason`, for the summary."""
        return {**self.counts, "rejected_by_reason": dict(sorted(self.reasons.items()))}


def scored_rows(
    reader: RowReader,
    dataset: RecordDataset,
    output_dir: Path,
    name: str,
    *,
    endings: Collection[str],
    tally: Tally,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Write rows as they pass, count them, and yield number and content of those with a score.

    The files, there once the last row has passed: `result/<name>` and `rejects.jsonl`.

    Args:
        endings: forms of the result: `.json`, an array, and `.jsonl`.

    Raises:
        DataError: a row of the data set is missing.
    """
    with ExitStack() as stack:

        def opened(path: str) -> BinaryIO:
            return stack.enter_context(AtomicFile(output_dir / path))

        array = JsonArray(opened(f"result/{name}.json")) if ".json" in endings else None
        lines = opened(f"result/{name}.jsonl") if ".jsonl" in endings else None
        rejects = opened(f"{split_prefix(name)}rejects.jsonl")
        for row, raw in reader.iterate_raw():
            payload = json.loads(raw)
            tally.counts["rows"] += 1
            if "reject" in payload:
                tally.counts["rejected"] += 1
                tally.reasons[payload["reject"].split(":")[0]] += 1
                rejects.write(reject_line(row, payload, dataset))
                continue
            tally.counts["scored"] += 1
            if array is not None:
                array.write([raw])
            if lines is not None:
                lines.write(raw + b"\n")
            yield row, payload
        check_complete(name, tally.counts["rows"], dataset)
        if array is not None:
            array.close()


def reject_line(row: int, payload: Mapping[str, Any], dataset: RecordDataset) -> bytes:
    """Return a line of `rejects.jsonl`; files without lines (Parquet, tar) give the row there."""
    place = payload if "file" in payload else dataset.source(row)
    line = {"row": row, "file": place.get("file"), "line": place.get("line", place.get("row"))}
    return json.dumps({**line, "reason": payload["reject"]}).encode() + b"\n"


def check_complete(name: str, found: int, dataset: RecordDataset) -> None:
    """Raise `DataError` unless every row of the data set was found."""
    if found != len(dataset):
        raise DataError(
            f"{name}: {len(dataset) - found} of {len(dataset)} rows were never scored; run "
            f"the same command again with the same run.output_dir to score them"
        )


def split_prefix(name: str) -> str:
    """Return what precedes the fixed file names: nothing for the split `test`, else `<split>_`."""
    split = name.split("_epoch")[0]
    return "" if split == "test" else f"{split}_"


logger = logging.getLogger(__name__)

PARQUET_ROWS = 32768  # of one row group
INTEGER_COLUMNS = ("index", "label", "prediction")


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

    A column's type is settled by the first row group and its name: `index`, `label` and
    `prediction` are integers, other numbers float64. A later value that does not fit becomes
    null, a later new key is left out, and either is said once; the JSON lines hold everything.
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
        """Write what is left and the footer; a table without rows has no columns."""
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


_ARROW = {"int": "int64", "float": "float64", "bool": "bool_", "text": "string"}


def _column_kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return column name -> `int`, `float`, `bool` or `text`, in the order of first appearance."""
    types: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            types.setdefault(name, set()).add(type(value))
    kinds = {}
    for name, found in types.items():
        found -= {type(None)}
        if found == {bool}:
            kinds[name] = "bool"
        elif found <= {int} and name in INTEGER_COLUMNS:
            kinds[name] = "int"
        elif found and found <= {int, float}:
            kinds[name] = "float"
        else:
            kinds[name] = "text"
    return kinds


def _fit(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text":
        text = value if isinstance(value, str) else json.dumps(value)
        return text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind == "float":
        try:
            return float(value)
        except OverflowError:  # an integer beyond float64
            return None
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
