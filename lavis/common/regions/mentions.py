"""A region as a reply writes it, and the error for one that it cannot mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lavis.common.errors import RecordError, finite, printable

_NUMBER = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{0,20})?")
_LONGEST = 120  # characters of a reply that an error shows


class RegionTextError(RecordError):
    """A text names a region that its convention does not know, or a region has no text in it."""


@dataclass(frozen=True, slots=True)
class Mention:
    """One region in a reply.

    Attributes:
        label: its name, or empty.
        numbers: two of a point or four of a box, as written; of `patches` two cells.
        text: the part of the reply.
        is_point: whether two numbers are a point.
    """

    label: str
    numbers: tuple[float, ...]
    text: str
    is_point: bool = False


@dataclass(slots=True)
class Mentions:
    """The regions of a reply, in order.

    Attributes:
        items: whole ones.
        dropped: how many were begun at its end, and are not whole.
    """

    items: list[Mention] = field(default_factory=list)
    dropped: int = 0


def shown(text: str) -> str:
    """Return the beginning of a text for an error, in one line."""
    text = " ".join(printable(text[: 2 * _LONGEST]).split())
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")


def numbers_of(parts: Iterable[str], text: str) -> tuple[float, ...]:
    """Return numbers of ASCII digits; raises `RegionTextError` with `text` for any other."""
    numbers = []
    for part in parts:
        if not _NUMBER.fullmatch(part.strip()):
            raise RegionTextError(f"no number: {shown(part)} in {shown(text)}")
        numbers.append(float(part))
    return tuple(numbers)


def numbers_in(values: object, text: str) -> tuple[float, ...]:
    """Return the numbers of a list of JSON; raises `RegionTextError` with `text` for any other."""
    numbers = [finite(value) for value in values] if isinstance(values, (list, tuple)) else [None]
    if any(number is None for number in numbers):
        raise RegionTextError(f"no numbers: {shown(str(values))} in {shown(text)}")
    return tuple(number for number in numbers if number is not None)
