"""JSON as language models write it: between other words, with slips, cut off, in linear time.

A text is scanned once. Complete objects and lists are returned in place; of a broken or cut one,
the complete ones inside it, and a record of the object that broke. Nothing is made up: libraries
that repair JSON close what is cut, so that half an answer looks like a whole one.

Accepted beyond JSON: commas too many or missing between values, line ends inside strings,
typographic and single quotation marks, unquoted keys, NaN and Python's None, True, False.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_OPENING = re.compile(r"[{\[]")
_SPACE = re.compile(r"[\s\ufeff]*")
_BLANK = re.compile(r"(?:[\s\ufeff,]|\.{3}|…)*")
_STRINGS = {
    **dict.fromkeys('"', re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)),
    **dict.fromkeys("'", re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)),
    **dict.fromkeys("“”„", re.compile(r"[“”„]((?:[^“”\\]|\\.)*)[“”]", re.DOTALL)),
}
_INNER = re.compile(r'[{\[]\s*"')
_NAME = re.compile(r"[^\W\d]\w*(?=\s*:)")
_SCALAR = re.compile(
    r"(?:[-+]?(?:\d[\d.eE+-]*|\.\d+|Infinity|NaN)|true|false|null|None|True|False)(?!\w)"
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(slots=True)
class Scalar:
    """A number, a truth value or null, as it is written."""

    text: str


@dataclass(slots=True)
class JsonList:
    """A list; `loose` if its container is broken or cut."""

    start: int
    end: int = -1
    values: list[Any] = field(default_factory=list)
    loose: bool = False
    suspect: int | None = None  # while it is read: its first string with a bracket in it

    def contained(self, kind: Any = None) -> list[Any]:
        """Return values that are objects or lists, or of another kind."""
        return [v for v in self.values if isinstance(v, kind or JsonObject | JsonList)]


@dataclass(slots=True)
class JsonObject:
    """An object, its pairs in order, duplicate keys included; `loose` as of lists."""

    start: int
    end: int = -1
    pairs: list[tuple[str, Any]] = field(default_factory=list)
    loose: bool = False
    suspect: int | None = None  # as of lists
    key: str | None = None  # while it is read: its value comes next

    def all(self, key: str) -> list[Any]:
        """Return the values of a key in any case."""
        return [value for name, value in self.pairs if name.strip().lower() == key]

    def contained(self, kind: Any = None) -> list[Any]:
        """Return values that are objects or lists, or of another kind."""
        return [v for _, v in self.pairs if isinstance(v, kind or JsonObject | JsonList)]


@dataclass(slots=True)
class Broken:
    """An object that is none.

    Attributes:
        start: where it begins.
        end: where it breaks.
        keys: that it has so far, in lower case.
        cut: the text ends inside it.
    """

    start: int
    end: int
    keys: frozenset[str]
    cut: bool


@dataclass(slots=True)
class Scan:
    """The complete objects and lists and the broken objects of a text, in order.

    Attributes:
        roots: none inside another.
        cut_at: start of the object or list in which the text ends, or None.
    """

    roots: list[JsonObject | JsonList | Broken] = field(default_factory=list)
    cut_at: int | None = None

    @property
    def is_cut(self) -> bool:
        """Return whether the text ends inside its JSON, with no whole object before."""
        if self.cut_at is None:
            return False
        whole = (r for r in self.roots if isinstance(r, JsonObject) and not r.loose)
        return all(root.end > self.cut_at for root in whole)


class _Break(Exception):
    """The next token does not belong into the object or list."""

    def __init__(self, *, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut


def scan_json(text: str) -> Scan:
    """Return the objects and lists of a text."""
    return _Scanner(text).run()


class _Scanner:
    """One pass over a text; where something breaks, strings before it are scanned once more.

    A quotation mark in prose may have taken the beginning of an answer for a string.
    """

    def __init__(self, text: str) -> None:
        self._text, self._place = text, 0
        self._open: list[JsonObject | JsonList] = []
        self._twice = 4 * len(text)  # characters that may be read again, so that time is linear
        self._scan = Scan()

    def run(self) -> Scan:
        """Read to the end."""
        while True:
            if not self._open:
                match = _OPENING.search(self._text, self._place)
                if match is None:
                    return self._scan
                self._push(match.start())
            try:
                self._step()
            except _Break as stop:
                self._break(stop.cut)

    def _step(self) -> None:
        """Read one token inside the innermost object or list."""
        inner = self._open[-1]
        needs_value = isinstance(inner, JsonObject) and inner.key is not None
        character = self._skip(_SPACE if needs_value else _BLANK)
        if isinstance(inner, JsonObject) and inner.key is None:
            if character == "}":
                self._pop()
            else:
                inner.key = self._key(character)
        elif isinstance(inner, JsonList) and character == "]":
            self._pop()
        elif character in "{[":
            self._push(self._place)
        else:
            self._put(self._value(character))

    def _skip(self, blank: re.Pattern[str]) -> str:
        """Return the next non-blank character; raises `_Break` at the end of the text."""
        match = blank.match(self._text, self._place)
        self._place = match.end() if match else self._place
        if self._place >= len(self._text):
            raise _Break(cut=True)
        return self._text[self._place]

    def _key(self, character: str) -> str:
        name = _NAME.match(self._text, self._place)
        if name is not None:
            key, self._place = name.group(), name.end()
        elif character in _STRINGS:
            key = self._read_string(character)
        else:
            raise _Break
        if self._skip(_SPACE) not in ":：":
            raise _Break
        self._place += 1
        return key

    def _value(self, character: str) -> Any:
        if character in _STRINGS:
            return self._read_string(character)
        match = _SCALAR.match(self._text, self._place)
        if match is None:
            raise _Break
        self._place = match.end()
        return Scalar(match.group())

    def _read_string(self, character: str) -> str:
        start, inner = self._place, self._open[-1]
        match = _STRINGS[character].match(self._text, start)
        if inner.suspect is None and (match is None or _OPENING.search(match[1])):
            inner.suspect = start
        if match and character != '"' and _INNER.search(match[1]):  # JSON in quotation marks
            inner.suspect = start
            raise _Break
        if match is None:  # it has no end
            raise _Break(cut=character == '"')
        self._place = match.end()
        return _unescaped(match[1])

    def _push(self, place: int) -> None:
        new = JsonObject(place) if self._text[place] == "{" else JsonList(place)
        self._open.append(new)
        self._place = place + 1

    def _pop(self) -> None:
        self._place += 1
        whole = self._open.pop()
        whole.end = self._place
        if self._open:
            self._put(whole)
        else:
            self._scan.roots.append(whole)

    def _put(self, value: Any) -> None:
        inner = self._open[-1]
        if isinstance(inner, JsonList):
            inner.values.append(value)
        else:
            inner.pairs.append((inner.key or "", value))
            inner.key = None

    def _break(self, cut: bool) -> None:
        """Give up what is open, keep what is complete inside it, and go on behind."""
        end = self._place
        suspect = next((p.suspect for p in self._open if p.suspect is not None), None)
        if suspect is not None and end - suspect <= self._twice:
            self._twice -= end - suspect
            self._place = suspect + 1
        elif cut:
            self._place = len(self._text)
        for part in self._open:
            if part.start >= self._place:
                break  # it is read again
            for whole in part.contained():
                if whole.start < self._place:
                    whole.loose = True
                    self._scan.roots.append(whole)
            if isinstance(part, JsonObject):
                names = [name for name, _ in part.pairs] + ([part.key] if part.key else [])
                keys = frozenset(name.strip().lower() for name in names)
                self._scan.roots.append(Broken(part.start, end, keys, cut))
        if cut and self._scan.cut_at is None:
            self._scan.cut_at = self._open[0].start
        self._open = []


def _unescaped(text: str) -> str:
    """Return a string with escapes resolved and halves of surrogate pairs joined."""
    if "\\" not in text:
        return text
    text = _ESCAPE.sub(_character, text)
    if re.search("[\ud800-\udbff][\udc00-\udfff]", text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


def _character(match: re.Match[str]) -> str:
    code = match[1]
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)
