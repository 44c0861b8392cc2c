"""Regions as JSON items and as bare lists of numbers, the forms that general models write."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.errors import REFUSALS
from lavis.common.regions.mentions import (
    Mention,
    Mentions,
    RegionTextError,
    numbers_in,
    numbers_of,
    shown,
)

if TYPE_CHECKING:
    from lavis.common.regions.table import Convention

_OPENING = re.compile(r"[{\[]")
_NUMBERS = re.compile(r"\[([\d\s.,+\-]+)(\]|$)")  # digits of any script, so that odd ones are seen
_REGION_KEY = re.compile(r"box|point|coord", re.IGNORECASE)
_NOISE = re.compile(r"<\|(?:begin|end)_of_box\|>|```\w*")
_REFUSED: tuple[type[Exception], ...] = (SyntaxError, *REFUSALS)
_EDGES = " \t\r\n,;:.-–*`'\"[]()"


def write_json(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return one item of a JSON list; floats that are whole are written without a point."""
    is_point = len(numbers) == 2
    key = convention.point_key if is_point else convention.box_key
    item: dict[str, Any] = {key: [_number(n, convention.decimals) for n in numbers]}
    if label:
        item[convention.label_key] = label
    return json.dumps(item, ensure_ascii=False)


def write_list(numbers: Sequence[float], label: str, convention: Convention) -> str:
    """Return `name [79, 47, 477, 937]`."""
    listed = ", ".join(f"{number:.{convention.decimals}f}" for number in numbers)
    return f"{label} [{listed}]" if label else f"[{listed}]"


def join_json(items: Sequence[str]) -> str:
    """Return items as a fenced JSON list, an item a line."""
    body = ",\n".join(f"\t{item}" for item in items)
    return f"```json\n[\n{body}\n]\n```" if items else "```json\n[]\n```"


def read_lists(text: str, convention: Convention) -> Mentions:
    """Return the regions of a reply: JSON items with the convention's keys, and bare lists.

    Text around them, fences, lists within lists or objects, single quotes and trailing commas do
    no harm. Two numbers alone are a point only in the style `list`: else they may be anything.

    Raises:
        RegionTextError: an item with keys of another convention, or that is no JSON.
    """
    text = _NOISE.sub(" ", text)
    found = Mentions()
    ends: dict[int, int | None] = {}
    place = end_of_last = 0
    while (match := _OPENING.search(text, place)) is not None:
        place = match.start()
        if text[place] == "{":
            if place not in ends:
                ends |= _ends_of_objects(text, place)
            end = ends.get(place)
            if end is None:  # a wrapper that is cut within an item, or the item
                if "{" not in text[place + 1 :]:
                    found.dropped += 1
                    break
                place += 1
                continue
            written = text[place:end]
            found.items += _regions(written, convention)
        else:
            numbers = _NUMBERS.match(text, place)
            if numbers is None or not any(c.isdigit() for c in numbers[1]):
                place += 1
                continue
            end = numbers.end()
            if not numbers[2]:
                found.dropped += 1
                break
            found.items += _bare(numbers, text[end_of_last:place], convention)
        place = end_of_last = end
    if found.items and not found.dropped and text[end_of_last:].strip() == ",":
        found.dropped += 1  # a comma promises another
    return found


def _regions(text: str, convention: Convention) -> list[Mention]:
    """Return the regions of an object's text."""
    value = _parse(text)
    try:
        return list(_items(value, text, convention))
    except RecursionError:
        raise RegionTextError(f"no JSON: {shown(text)}") from None


def _bare(numbers: re.Match[str], before: str, convention: Convention) -> Iterator[Mention]:
    parts = [part for part in re.split(r"[\s,]+", numbers[1].strip(" \t\r\n,")) if part]
    is_point = len(parts) == 2 and convention.style == "list" and "point" in convention.writes
    if len(parts) == 4 or is_point:
        label = before.splitlines()[-1].strip(_EDGES) if before.strip() else ""
        yield Mention(label, numbers_of(parts, numbers[0]), numbers[0], is_point)


def _items(value: Any, text: str, convention: Convention) -> Iterator[Mention]:
    """Yield the regions of a decoded value."""
    if isinstance(value, dict):
        keys = {key for key in (convention.box_key, convention.point_key) if key in value}
        others = [k for k, v in value.items() if _REGION_KEY.search(str(k)) and _is_region(v)]
        strange = sorted(set(others) - keys)
        if strange or len(keys) > 1:
            raise RegionTextError(
                f"unknown form: {strange or sorted(keys)} is not how {convention.name} writes a "
                f"region: {shown(text)}"
            )
        for key in keys:
            label = value.get(convention.label_key)
            name = "" if label is None else str(label).strip()
            yield from _coordinates(value[key], name, text, key == convention.point_key)
        if not keys:
            for part in value.values():
                yield from _items(part, text, convention)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _items(part, text, convention)


def _coordinates(value: Any, label: str, text: str, is_point: bool) -> Iterator[Mention]:
    """Yield one region, or several of one label."""
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple)):
        for part in value:
            yield from _coordinates(part, label, text, is_point)
        return
    numbers = numbers_in(value, text)
    if len(numbers) != (2 if is_point else 4):
        raise RegionTextError(f"wrong count: {len(numbers)} numbers in {shown(text)}")
    yield Mention(label, numbers, text, is_point)


def _is_region(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not any(isinstance(v, (dict, str)) for v in value)


def _parse(text: str) -> Any:
    """Return the value of JSON, or of Python as some models write it."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RegionTextError:
        raise
    except REFUSALS:
        pass
    try:
        return ast.literal_eval(text)
    except _REFUSED:
        raise RegionTextError(f"no JSON: {shown(text)}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise RegionTextError(f"two of a key: {shown(', '.join(names))}")
    return dict(pairs)


def _ends_of_objects(text: str, start: int) -> dict[int, int | None]:
    """Return where an object ends, and those within it; None where the text ends before.

    One pass, so that a reply of nothing but braces costs no more than another.
    """
    ends: dict[int, int | None] = {}
    opened: list[int] = []
    quote, place = "", start
    while place < len(text):
        character = text[place]
        if quote:
            if character == "\\":
                place += 1
            elif character == quote:
                quote = ""
        elif character == '"' or (character == "'" and text[place - 1] in " \t\n{[,:("):
            quote = character
        elif character in "{[":
            opened.append(place)
            ends[place] = None
        elif character in "}]":
            ends[opened.pop()] = place + 1
            if not opened:
                break
        place += 1
    return ends


def _number(value: float, decimals: int) -> float | int:
    return round(value, decimals) if decimals else int(value)
