"""Items of published files, one at a time: lines of JSON, or elements of a JSON array."""

from __future__ import annotations

import codecs
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lavis.common.errors import (
    DECODE_REFUSALS,
    DataError,
    RecordError,
    brief,
    printable,
    record_errors,
)
from lavis.common.storage.foreign import foreign_kind_of
from lavis.datasets.files.json_lists import list_elements
from lavis.datasets.files.records import parse_object


@dataclass(frozen=True)
class Item:
    """One item of a file.

    Attributes:
        place: where it is: `file`, and `line` or `item`, from 1.
        value: the JSON value; None where it is malformed.
        error: why it is malformed.
    """

    place: dict[str, Any]
    value: Any = None
    error: str | None = None


def open_text(path: Path) -> IO[str]:
    """Open a text file, also one that ends in `.gz`.

    Raises:
        DataError: it is not there.
    """
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig")


def _open_bytes(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    kind = foreign_kind_of(path) if path.stat().st_size else None
    if kind is not None:
        raise DataError(f"{path} is {kind}")
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def read_items(path: Path, key: str | None = None) -> Iterator[Item]:
    """Yield a file's items: those of an array, or lines where the file is not one JSON value.

    Args:
        path: `.json`, `.jsonl`, or either with `.gz`.
        key: where the file is one object, the name of its array.
    """
    try:
        with _open_bytes(path) as file:
            first = _first_character(file)
    except DECODE_REFUSALS as error:
        raise as_data_error(error, path) from None
    if path.name.lower().removesuffix(".gz").endswith(".jsonl") or (key is None and first == "{"):
        yield from _read_lines(path)
        return
    with open_text(path) as file:
        for number, element in enumerate(list_elements(file, key, str(path)), 1):
            place = {"file": str(path), "item": number}
            yield Item(place, element.value, element.problem or None)


def _first_character(file: IO[bytes]) -> str:
    start = file.read(len(codecs.BOM_UTF8))
    place = b"" if start == codecs.BOM_UTF8 else start
    while not place.strip():
        more = file.read(4096)
        if not more:
            return ""
        place = more
    return chr(place.lstrip()[0])


def _read_lines(path: Path) -> Iterator[Item]:
    with _open_bytes(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            place = {"file": str(path), "line": number}
            try:
                yield Item(place, parse_object(line))
            except RecordError as error:
                yield Item(place, error=error.reason)


def _lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that may be packed and cut short."""
    try:
        yield from file
    except DECODE_REFUSALS as error:
        raise as_data_error(error, path) from None


def as_data_error(error: Exception, path: Path) -> DataError:
    """Return what is told of a file that cannot be read."""
    return (
        error
        if isinstance(error, DataError)
        else DataError(f"{path}: cannot be read: {brief(error)}")
    )


def read_json(path: Path) -> Any:
    """Return a small JSON file.

    Raises:
        RecordError: not there, or not JSON; the record that names it cannot be used.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError):
        raise RecordError(f"missing file: {printable(path.name)}") from None
    with record_errors(f"malformed file: {printable(path.name)}"):
        return json.loads(content.decode("utf-8"))
