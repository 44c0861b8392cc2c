"""Elements of a JSON array in a file, one at a time, each as its text and as a value."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from lavis.common.errors import (
    REFUSALS,
    DataError,
    RecordError,
    brief,
    data_errors,
    printable,
    record_errors,
)

_CHUNK = 1 << 20  # characters read at a time
_BLANKS = " \t\n\r"
_DEEPEST = 200  # levels of a record; writers and other processes have less stack than the parser


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its text, and its value, or why it has none."""

    text: str
    value: Any = None
    problem: str = ""


def list_elements(file: IO[str], key: str | None, name: str) -> Iterator[Element]:
    """Yield the elements of the file's array, or of the array `key` of its object.

    Never more than one element and one chunk are in memory.

    Raises:
        DataError: not such a file, one that is cut off, or one that goes on behind its end.
    """
    reader = _Reader(file, name)
    is_inside = key is not None and reader.peek() == "{"
    if is_inside:
        reader.take("{")
        while True:
            if reader.peek() == "}":
                raise DataError(f"{name}: has no list '{key}'")
            name_of_value = reader.element().value
            reader.take(":")
            if name_of_value == key:
                break
            reader.element()
            if reader.peek() == ",":
                reader.take(",")
    reader.take("[")
    while reader.peek() != "]":
        yield reader.element()
        if reader.peek() == ",":
            reader.take(",")
        elif reader.peek() != "]":
            reader.fail("expected ',' or ']'")
    reader.take("]")
    if is_inside:  # the rest tells whether the file is whole
        while reader.peek() == ",":
            reader.take(",")
            if reader.element().value == key:
                reader.fail(f"'{key}' comes twice")
            reader.take(":")
            reader.element()
        reader.take("}")
    reader.finish()


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of its pairs; raises `RecordError` for a duplicate key, as ambiguous."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RecordError(f"duplicate key: {printable(twice)[:60]!r} comes twice in one object")
    return mapping


def check_json(value: Any, text: bytes) -> None:
    """Raise `RecordError` for a value nested too deep, or with half of a surrogate pair."""
    if b"\\ud" in text or b"\\uD" in text:  # half of a surrogate pair is no character
        with record_errors("malformed line"):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    if text.count(b"[") + text.count(b"{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise RecordError(f"malformed line: nested more than {_DEEPEST} deep")


def _depth(value: Any) -> int:
    """Return the nesting depth of lists and objects, counted up to one more than allowed."""
    level, depth = [value], 0
    while depth <= _DEEPEST:
        inner = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))
        ]
        if not inner:
            return depth
        level = [v for values in inner for v in values]
        depth += 1
    return depth


class _Reader:
    """JSON values from a file that is read in chunks."""

    def __init__(self, file: IO[str], name: str) -> None:
        self._file, self._name = file, name
        self._text, self._place = "", 0
        self._problem = ""  # of a value that Python would refuse, or settle without a word
        self._decode = json.JSONDecoder(
            parse_int=self._int, object_pairs_hook=self._object
        ).raw_decode

    def _int(self, digits: str) -> int:
        """Return a number, or the length of one too long: an error would lose the place."""
        limit = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 0
        if limit and len(digits) > limit:
            self._problem = f"malformed item: a number of {len(digits)} digits"
            return 0
        return int(digits)

    def _object(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object; a duplicate key is noted as a problem, and the list goes on."""
        try:
            return unique_keys(pairs)
        except RecordError as error:
            self._problem = error.reason
            return {}

    def peek(self) -> str:
        """Return the next non-blank character, without taking it."""
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

    def element(self) -> Element:
        """Take one JSON value."""
        self.peek()
        while True:
            self._problem = ""
            try:
                value, end = self._decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if not self._more():
                    self.fail(error.msg)
                continue
            except REFUSALS as error:
                self.fail(brief(error))
            if not self._text[end:].strip(".eE+-") and self._more():
                continue  # a number may go on, also where the chunk ends behind its point
            text = self._text[self._place : end]
            self._place = end
            if self._problem:
                return Element(text, None, self._problem)
            try:
                check_json(value, text.encode("utf-8", "surrogatepass"))
            except RecordError as error:
                return Element(text, None, error.reason)
            return Element(text, value)

    def finish(self) -> None:
        """Check that nothing but blanks is left."""
        while True:
            self._place += len(self._text[self._place :]) - len(
                self._text[self._place :].lstrip(_BLANKS)
            )
            if self._place < len(self._text):
                self.fail("something follows the end, such as a second list")
            if not self._more():
                return

    def fail(self, what: str) -> Any:
        """Raise `DataError`."""
        near = self._text[self._place : self._place + 40]
        raise DataError(f"{self._name}: not the JSON that was expected: {what} near {near!r}")

    def _more(self) -> bool:
        size = max(_CHUNK, len(self._text) - self._place)  # doubles for a long value
        with data_errors(f"{self._name}: cannot be read"):  # text, and what packs it
            chunk = self._file.read(size)
        if chunk:
            self._text, self._place = self._text[self._place :] + chunk, 0
        return bool(chunk)
