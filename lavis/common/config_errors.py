"""One line of plain words for each thing that is wrong with a configuration."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from lavis.common.errors import nearest


def explain(
    error: ValidationError,
    cls: Any,
    node: Any,
    key: str,
    *,
    source: Callable[[str], str],
    names: Iterable[str] = (),
) -> str:
    """Turn a validation error into lines `source, full.key: found, expected, nearest name`.

    Args:
        error: what pydantic found.
        cls: the dataclass that was checked.
        node: the plain containers that were checked.
        key: dotted key of `node` in the whole config.
        source: full key -> the file (or `--options`) its value came from.
        names: valid names beside the fields of `cls`, for the hint of an unknown key.
    """
    lines: dict[str, str] = {}  # a union reports each member; the first line for a key is enough
    for problem in error.errors():
        path = _data_path(problem["loc"], node, problem["type"])
        full = ".".join([key, *map(str, path)])
        text = _text(problem, cls, path, names)
        if problem["type"] == "value_error":
            full, text = _named_key(full, text, _field_names(cls, path))
        lines.setdefault(full, f"{source(full)}, {full}: {text}")
    return "\n".join(lines.values())


def _text(problem: Any, cls: Any, path: list[Any], names: Iterable[str]) -> str:
    kind = problem["type"]
    found = problem.get("input")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        valid = {*_field_names(cls, path[:-1]), *(names if len(path) == 1 else ())}
        return f"unknown key{nearest(str(path[-1]), valid)}"
    if kind in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "missing; a value is required"
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "literal_error":
        valid = problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{found!r} found{nearest(str(found), valid)}"
    expected = problem["msg"].replace("Input should be ", "").replace("Input ", "")
    return f"{found!r} found, expected {expected}"


def _named_key(key: str, text: str, fields: set[str]) -> tuple[str, str]:
    """Move the field that a check names first (`a.b: ...`, `a is ...`) from the text to the key."""
    found = re.match(r"([a-z]\w*)([.\w]*)(: | is )", text.removeprefix(f"{key}."))
    if found is None or found[1] not in fields:
        return key, text
    rest = text.removeprefix(f"{key}.")[found.end() :]
    return f"{key}.{found[1]}{found[2]}", rest if found[3] == ": " else f"is {rest}"


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
