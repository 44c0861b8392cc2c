"""Typed columns as JSON values, with conversions chosen before any row is read; JSON lines.

| column type | in a record |
|---|---|
| text, whole numbers, truth values, lists, structs | the same |
| float, half float | number; NaN and infinities, which JSON has no numbers for, are null |
| decimal | number where a double holds every digit, else text with all digits |
| timestamp, date, time | ISO 8601 text |
| duration | seconds |
| map | object; a list of pairs where keys are no texts or numbers, or are duplicate |
| binary of fixed size (hashes) | base64 text; a UUID is its text |
| other binary (images, blobs) | left out |
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lavis.common.errors import DataError, RecordError

Convert = Callable[[Any], Any]


class RowConverter:
    """Makes records of the rows of one table.

    Args:
        schema: of pyarrow.
        path: of the file, for messages.

    Attributes:
        left_out: dotted names of the fields whose bytes stay out of records.

    Raises:
        DataError: two columns, or two fields of a struct, have one name; or a type has no form.
    """

    def __init__(self, schema: Any, path: str) -> None:
        _check_names("", schema.names, path)
        self.left_out: list[str] = []
        self._schema, self._path = schema, path
        converters = {field.name: self._of(field.type, field.name) for field in schema}
        self._columns = {name: convert for name, convert in converters.items() if convert}

    def __reduce__(self) -> tuple[Any, ...]:
        return RowConverter, (self._schema, self._path)  # functions cannot travel

    @property
    def columns(self) -> list[str]:
        """Names of the columns that records have."""
        return list(self._columns)

    def record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's non-null values, of columns in the schema, from pyarrow's values."""
        values = {name: self.value(name, row.get(name)) for name in self._columns}
        return {name: value for name, value in values.items() if value is not None}

    def value(self, column: str, value: Any) -> Any:
        """Return one column's value; None where it is left out."""
        convert = self._columns.get(column)
        return None if value is None or convert is None else convert(value)

    def names(self) -> Iterator[str]:
        """Yield the dotted names to read, without those `left_out`; lists are read whole."""
        for field in self._schema:
            yield from self._names(field, field.name)

    def _names(self, field: Any, name: str) -> Iterator[str]:
        import pyarrow as pa

        inside = any(other.startswith(f"{name}.") for other in self.left_out)
        if inside and pa.types.is_struct(field.type):
            for part in field.type:
                yield from self._names(part, f"{name}.{part.name}")
        elif name not in self.left_out:
            yield name

    def _of(self, kind: Any, name: str) -> Convert | None:
        """Return the converter of a type's non-null values; None leaves them out."""
        import pyarrow as pa

        types = pa.types
        if isinstance(kind, pa.BaseExtensionType):
            named = kind.extension_name == "arrow.uuid"
            return str if named else self._of(kind.storage_type, name)
        if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
            return self._of(kind.value_type, name)
        if types.is_map(kind):
            return _map(self._of(kind.key_type, name), self._of(kind.item_type, name))
        if types.is_struct(kind):
            return self._struct(kind, name)
        if hasattr(kind, "value_type"):  # every kind of list
            item = self._of(kind.value_type, name)
            return item and (lambda value: [None if v is None else item(v) for v in value])
        if types.is_fixed_size_binary(kind):
            return lambda value: base64.b64encode(value).decode("ascii")
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
            self.left_out.append(name)
            return None
        for is_kind, convert in _PLAIN:
            if getattr(types, is_kind)(kind):
                return convert
        raise DataError(
            f"{self._path}: column '{name}' is of type {kind}, which records cannot hold"
        )

    def _struct(self, kind: Any, name: str) -> Convert | None:
        _check_names(name, [field.name for field in kind], self._path)
        converters = {field.name: self._of(field.type, f"{name}.{field.name}") for field in kind}
        parts = {part: convert for part, convert in converters.items() if convert}
        if converters and not parts:
            return None

        def converted(value: Mapping[str, Any]) -> dict[str, Any]:
            return {
                part: None if value[part] is None else convert(value[part])
                for part, convert in parts.items()
            }

        return converted


def _check_names(where: str, names: Sequence[str], path: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        what = f"two fields of '{where}'" if where else "two columns"
        raise DataError(f"{path}: {what} are called '{twice}'; rename one")


def _map(key: Convert | None, item: Convert | None) -> Convert | None:
    if key is None or item is None:
        return None

    def converted(value: Sequence[tuple[Any, Any]]) -> Any:
        pairs = [(key(k), None if v is None else item(v)) for k, v in value]
        plain = all(isinstance(k, (str, int)) and not isinstance(k, bool) for k, _ in pairs)
        mapping = {str(k): v for k, v in pairs}
        return mapping if plain and len(mapping) == len(pairs) else [list(pair) for pair in pairs]

    return converted


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> float | None:
    number = float(value)  # half floats come as numpy's
    return number if math.isfinite(number) else None


def _decimal(value: Any) -> int | float | str:
    if value.as_tuple().exponent == 0:
        return int(value)
    number = float(value)
    return number if math.isfinite(number) and type(value)(repr(number)) == value else str(value)


def _iso(value: Any) -> str:
    return value.isoformat()


def _seconds(value: Any) -> float:
    return value.total_seconds()


# name of the check in pyarrow.types -> conversion; the first match counts
_PLAIN: tuple[tuple[str, Convert], ...] = (
    *((name, _same) for name in ("is_null", "is_boolean", "is_integer")),
    *((name, _same) for name in ("is_string", "is_large_string", "is_string_view")),
    ("is_floating", _number),
    ("is_decimal", _decimal),
    *((name, _iso) for name in ("is_timestamp", "is_date", "is_time")),
    ("is_duration", _seconds),
    ("is_interval", list),
)


def json_line(record: Any, *, ascii_only: bool = False) -> bytes:
    """Return a record as strict JSON in UTF-8, without a line end.

    NaN and infinities, which JSON has no numbers for, are null. Half a surrogate pair is escaped.
    """
    try:
        text = json.dumps(record, ensure_ascii=ascii_only, allow_nan=False)
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json_line(record, ascii_only=True)
    except ValueError:
        text = json.dumps(finite(record), allow_nan=False)
        return text.encode("ascii")


def finite(value: Any) -> Any:
    """Return a JSON-able value with NaN and infinities as None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def text_of(record: Mapping[str, Any], key: str) -> str:
    """Return a text of a record; raises `RecordError` where it is missing, no text, or empty."""
    text = record.get(key)
    if text is None:
        raise RecordError(f"missing field: {key}")
    if not isinstance(text, str):
        raise RecordError(f"wrong type: {key} is {type(text).__name__}, expected text")
    if not text.strip():
        raise RecordError(f"empty text: {key}")
    return text
