"""One line of plain words for each fault of a configuration, all at once."""

from __future__ import annotations

import copy
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lavis.common.errors import ConfigError, nearest

UNKNOWN, WRONG, ABSENT = range(3)  # keys, values, files: the order in which faults are reported
FAILED = object()
_ROUNDS = 50


@dataclass(frozen=True)
class Fault:
    """One fault of a configuration.

    Attributes:
        rank: `UNKNOWN`, `WRONG` or `ABSENT`.
        text: the value, and what to write instead.
        key: full dotted key, where one is known.
        source: the file (or `--options`) that its value came from.
    """

    rank: int
    text: str
    key: str = ""
    source: str = ""

    @property
    def line(self) -> str:
        """What the user reads."""
        return f"{self.source}, {self.key}: {self.text}" if self.key else self.text


class Faults:
    """Faults of a configuration, collected while it is read."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._faults)

    def add(self, faults: Iterable[Fault]) -> None:
        """Note faults."""
        self._faults += faults

    def attempt(self, call: Callable[..., Any], *args: Any, rank: int | None = None) -> Any:
        """Return a call's result, or `FAILED` after noting the `ConfigError` it raised."""
        try:
            return call(*args)
        except ConfigError as error:
            lines = [_of_line(line) for line in str(error).split("\n")]
            self._faults += [each if rank is None else Fault(rank, each.text) for each in lines]
            return FAILED

    def check(self) -> None:
        """Raise `ConfigError` with a line for each fault: unknown keys, wrong values, files."""
        if self._faults:
            ordered = sorted(self._faults, key=lambda fault: fault.rank)
            raise ConfigError("\n".join(dict.fromkeys(fault.line for fault in ordered)))


def check_section(
    cls: Any,
    node: Any,
    key: str,
    *,
    source: Callable[[str], str],
    names: Iterable[str] = (),
    absent: Collection[str] = (),
) -> tuple[Any, list[Fault]]:
    """Return the dataclass built from plain containers, and every fault there.

    A check may stop at its first fault, and checks of a whole section run only where its fields are
    right: so faulty values are taken out, and the rest is checked again, until no fault is left.

    Args:
        node: plain containers; not changed.
        key: dotted key of `node` in the whole config.
        source: full key -> the file (or `--options`) its value came from.
        names: valid names beside the fields of `cls`, for the hint of an unknown key.
        absent: full keys whose values could not be read, which is reported elsewhere.

    Returns:
        The dataclass without faulty values, or None where one cannot be left out; the faults.
    """
    faults: list[Fault] = []
    removed = set(absent)
    left = copy.deepcopy(node)
    for _ in range(_ROUNDS):
        try:
            value = TypeAdapter(cls).validate_python(left)
        except ValidationError as error:
            latest = faults_of(error, cls, left, key, source=source, names=names)
        else:
            faults += [
                Fault(WRONG, f"{boolean} found, expected a number", place, source(place))
                for place, boolean in _truths_for_numbers(value, left, key)
            ]
            return value, list(dict.fromkeys(faults))
        faults += [fault for fault in latest if not _is_echo(fault, removed)]
        wrong = {fault.key for fault in latest}
        taken = {_remove(left, each.removeprefix(f"{key}.")) for each in wrong - removed} - {""}
        if not taken:
            break
        removed |= wrong | {f"{key}.{each}" for each in taken}
    return None, list(dict.fromkeys(faults))


def _truths_for_numbers(value: Any, node: Any, key: str) -> Iterator[tuple[str, bool]]:
    """Yield key and value where a boolean in `node` silently became 0 or 1 in `value`."""
    if isinstance(node, bool):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, node
    elif isinstance(node, dict):
        for name, inner in node.items():
            part = value.get(name) if isinstance(value, dict) else getattr(value, str(name), None)
            yield from _truths_for_numbers(part, inner, f"{key}.{name}")
    elif isinstance(node, list) and isinstance(value, (list, tuple)):
        for place, (part, inner) in enumerate(zip(value, node, strict=False)):
            yield from _truths_for_numbers(part, inner, f"{key}.{place}")


def faults_of(
    error: ValidationError,
    cls: Any,
    node: Any,
    key: str,
    *,
    source: Callable[[str], str],
    names: Iterable[str] = (),
) -> list[Fault]:
    """Turn pydantic's error into faults; the arguments are those of `check_section`."""
    by_key: dict[str, Fault] = {}  # a union reports each member; the first for a key is enough
    for problem in error.errors():
        path = _data_path(problem["loc"], node, problem["type"])
        place = ".".join([key, *map(str, path)])
        is_unknown = problem["type"] in _UNKNOWN_TYPES
        for text in _text(problem, cls, path, names).split("\n"):
            full = place
            if problem["type"] == "value_error":
                full, text = _named_key(place, text, _field_names(cls, path))
            rank = UNKNOWN if is_unknown else _rank(text)
            by_key.setdefault(full, Fault(rank, text, full, source(full)))
    return list(by_key.values())


def explain(
    error: ValidationError, cls: Any, node: Any, key: str, *, source: Callable[[str], str]
) -> str:
    """Return a line for each fault of a node that a class refused; see `check_section`."""
    faults = check_section(cls, node, key, source=source)[1]
    faults = faults or faults_of(error, cls, node, key, source=source)
    return "\n".join(fault.line for fault in sorted(faults, key=lambda fault: fault.rank))


_UNKNOWN_TYPES = ("unexpected_keyword_argument", "extra_forbidden")


def _of_line(line: str) -> Fault:
    return Fault(_rank(line), line)


def _rank(text: str) -> int:
    if re.search(r"\bunknown (key|section)\b", text):
        return UNKNOWN
    return ABSENT if re.search(r"\bno such\b", text) else WRONG


def _is_echo(fault: Fault, removed: Collection[str]) -> bool:
    """Return whether a fault only reports the absence of a value that was taken out before."""
    if fault.key in removed:
        return True
    words = set(re.findall(r"\w+", fault.text))
    return fault.rank == WRONG and any(key.rpartition(".")[2] in words for key in removed)


def _remove(node: Any, key: str) -> str:
    """Remove a dotted key, or its innermost existing parent; return the removed key or ''."""
    parts = key.split(".")
    for depth, part in enumerate(parts):
        inner = node.get(part) if isinstance(node, dict) else None
        last = depth == len(parts) - 1
        if isinstance(node, dict) and part in node:
            following = None if last else parts[depth + 1]
            if last or not isinstance(inner, dict) or following not in inner:
                del node[part]
                return ".".join(parts[: depth + 1])
        node = inner
    return ""


def _text(problem: Any, cls: Any, path: list[Any], names: Iterable[str]) -> str:
    kind = problem["type"]
    value = problem.get("input")
    if kind in _UNKNOWN_TYPES:
        valid = {*_field_names(cls, path[:-1]), *(names if len(path) == 1 else ())}
        return f"unknown key{nearest(str(path[-1]), valid)}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "missing; a value is required"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "literal_error":
        valid = problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{value!r} found{nearest(str(value), valid)}"
    expected = problem["msg"].replace("Input should be ", "").replace("Input ", "")
    return f"{value!r} found, expected {expected}".replace("\n", " ")


def _named_key(key: str, text: str, fields: set[str]) -> tuple[str, str]:
    """Move the field that a check names first (`a.b: ...`, `a is ...`) from the text to the key."""
    match = re.match(r"([a-z]\w*)([.\w]*)(: | is )", text.removeprefix(f"{key}."))
    if match is None or match[1] not in fields:
        return key, text
    rest = text.removeprefix(f"{key}.")[match.end() :]
    return f"{key}.{match[1]}{match[2]}", rest if match[3] == ": " else f"is {rest}"


def _data_path(loc: tuple[Any, ...], node: Any, kind: str) -> list[Any]:
    """Keep the parts of a pydantic location that are keys of the data, not names of types."""
    path: list[Any] = []
    current = node
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(current, dict) and (part in current or (last and "missing" in kind)):
            path.append(part)
            current = current.get(part)
        elif isinstance(current, list) and isinstance(part, int):
            path.append(part)
            current = current[part] if part < len(current) else None
    return path


def _field_names(cls: Any, path: list[Any]) -> set[str]:
    """Return the field names of the dataclass that a path inside `cls` leads to."""
    candidates = [cls]
    for part in path:
        following: list[Any] = []
        for candidate in candidates:
            if dataclasses.is_dataclass(candidate):
                hints = typing.get_type_hints(candidate)
                following += _members(hints[part]) if part in hints else []
            elif typing.get_origin(candidate) in (dict, list):
                following += _members(typing.get_args(candidate)[-1])
        candidates = following
    return {
        field.name
        for candidate in candidates
        if dataclasses.is_dataclass(candidate)
        for field in dataclasses.fields(candidate)
    }


def _members(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [m for arg in typing.get_args(hint) for m in _members(arg)]
    return [hint]
