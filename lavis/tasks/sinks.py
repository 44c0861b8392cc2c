"""Forms that rows are written in as they stream by: a JSON array, a Parquet table."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

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
