"""Items of published files, one at a time: lines of JSON, or elements of a JSON array."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lavis.common.errors import DataError, RecordError
from lavis.datasets.records import parse_object

_CHUNK = 1 << 20  # characters read at a time
_BLANKS = " \t\n\r"


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
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return open(path, encoding="utf-8-sig")


def read_items(path: Path, key: str | None = None) -> Iterator[Item]:
    """Yield a file's items: those of an array, or lines where the file is not one JSON value.

    Args:
        path: `.json`, `.jsonl`, or either with `.gz`.
        key: where the file is one object, the name of its array.
    """
    with open_text(path) as file:
        first = _first_character(file)
    if path.name.removesuffix(".gz").endswith(".jsonl") or (key is None and first == "{"):
        yield from _read_lines(path)
        return
    with open_text(path) as file:
        for number, value in enumerate(iterate_array(file, key, str(path)), 1):
            yield Item({"file": str(path), "item": number}, value)


def _first_character(file: IO[str]) -> str:
    while character := file.read(1):
        if character not in _BLANKS:
            return character
    return ""


def _read_lines(path: Path) -> Iterator[Item]:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = {"file": str(path), "line": number}
            try:
                yield Item(place, parse_object(line.encode("utf-8", "surrogatepass")))
            except RecordError as error:
                yield Item(place, error=error.reason)


def iterate_array(file: IO[str], key: str | None, name: str) -> Iterator[Any]:
    """Yield the elements of the file's array, or of the array `key` of its object.

    Never more than one element and one chunk are in memory.

    Raises:
        DataError: not such a file, or one that is cut off.
    """
    reader = _Reader(file, name)
    if key is not None and reader.peek() == "{":
        reader.take("{")
        while True:
            if reader.peek() == "}":
                raise DataError(f"{name}: has no list '{key}'")
            found = reader.value()
            reader.take(":")
            if found == key:
                break
            reader.value()
            if reader.peek() == ",":
                reader.take(",")
    reader.take("[")
    while reader.peek() != "]":
        yield reader.value()
        if reader.peek() == ",":
            reader.take(",")
        elif reader.peek() != "]":
            reader.fail("expected ',' or ']'")


class _Reader:
    """JSON values from a file that is read in chunks."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self._name = file, name
        self._text, self._place = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is not blank, without taking it."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANKS:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                self.fail("the file is cut off")

    def take(self, character: str) -> None:
        """Take one character, which must be next."""
        if self.peek() != character:
            self.fail(f"expected '{character}'")
        self._place += 1

    def value(self) -> Any:
        """Take one JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if not self._more():
                    self.fail(error.msg)
                continue
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._place = end
            return value

    def fail(self, what: str) -> None:
        """Raise `DataError`."""
        near = self._text[self._place : self._place + 40]
        raise DataError(f"{self._name}: not the JSON that was expected: {what} near {near!r}")

    def _more(self) -> bool:
        size = max(_CHUNK, len(self._text) - self._place)  # doubles for a long value
        chunk = self._file.read(size)
        if chunk:
            self._text, self._place = self._text[self._place :] + chunk, 0
        return bool(chunk)


def read_json(path: Path) -> Any:
    """Return a small JSON file.

    Raises:
        RecordError: not there, or not JSON; the record that names it cannot be used.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RecordError(f"missing file: {path.name}") from None
    except ValueError as error:
        raise RecordError(f"malformed file: {path.name}: {str(error)[:80]}") from None
