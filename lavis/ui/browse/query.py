"""Selections of a corpus by words, source, scores and regions, in any order; their pages.

Words: all must be there; `"two words"` is a phrase, `word*` a prefix, `-word` must not be there.
Case and accents do not count. Nothing else is special, so no text is an error.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace

import numpy as np

from lavis.common.errors import ConfigError
from lavis.ui.browse.index import BAD, CorpusIndex

# column -> the page's names of its two directions, ascending first
ORDERS = {
    "file": ("file order", "file order, last first"),
    "score": ("lowest score", "highest score"),
    "regions": ("fewest regions", "most regions"),
    "source": ("source, from A", "source, from Z"),
    "length": ("shortest text", "longest text"),
}
COMPARED_ORDERS = {
    "other": ("second score, lowest", "second score, highest"),
    "difference": ("difference, lowest", "difference, highest"),
    "distance": ("scores most alike", "scores least alike"),
}
RANDOM = "random"
DESCENDING = "-desc"
OTHER_NAMES = {"highest": "score-desc", "lowest": "score"}
_KEPT = 8  # selections kept, 8 bytes a row each
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_WORD = re.compile(r"\w")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A selection and its order.

    Attributes:
        text: words, see the module.
        sources: any of these; none means all.
        score: least and greatest, None for no bound; a bound excludes rows without a score.
        regions: least and greatest number of regions.
        difference: of the second run's score less the first's.
        order: a column of `ORDERS` or `COMPARED_ORDERS`, with `-desc` the other way round, or
            `random`, the same shuffle each time; `highest` and `lowest` are those of scores.
    """

    text: str = ""
    sources: tuple[str, ...] = ()
    score: tuple[float | None, float | None] = (None, None)
    regions: tuple[float | None, float | None] = (None, None)
    difference: tuple[float | None, float | None] = (None, None)
    order: str = "file"

    def __post_init__(self) -> None:
        read_order(self.order)
        for name in ("score", "regions", "difference"):
            low, high = getattr(self, name)
            if low is not None and high is not None and low > high:
                raise ConfigError(f"{name} from {low} to {high}: the first number is greater")


def read_order(text: str) -> tuple[str, bool]:
    """Return the sort column, and whether it descends; raises `ConfigError` for no such order."""
    name = OTHER_NAMES.get(text, text)
    column = name.removesuffix(DESCENDING)
    if column in (*ORDERS, *COMPARED_ORDERS) or name == RANDOM:
        return column, name != column
    names = ", ".join((*ORDERS, *COMPARED_ORDERS))
    raise ConfigError(
        f"order {text[:40]!r}: use one of {names}, each with {DESCENDING} the other way round; "
        f"{', '.join(OTHER_NAMES)} (score), {RANDOM}"
    )


def parse_words(text: str) -> tuple[str, list[str]]:
    """Return the FTS5 expression of the required words (or empty), and the excluded ones."""
    wanted: list[str] = []
    unwanted: list[str] = []
    for sign, phrase, word in _TERM.findall(text.replace("\0", " ")):
        term, star = (
            (phrase, "") if phrase or not word else (word.rstrip("*"), "*" * (word[-1] == "*"))
        )
        if not _WORD.search(term):
            continue  # nothing but marks: the tokenizer keeps none of it
        quoted = '"' + term.replace('"', '""') + '"' + star
        (unwanted if sign else wanted).append(quoted)
    return " AND ".join(wanted), unwanted


class CorpusQuery:
    """Answers filters over an index; may be called from several threads.

    Example:
        >>> query = CorpusQuery(open_index(dataset))
        >>> rows = query.select(Filter(text='"red hat" -dog', score=(0.5, None)))
    """

    def __init__(self, index: CorpusIndex) -> None:
        self.index = index
        self.select = functools.lru_cache(_KEPT)(self._select)
        self._base_of = functools.lru_cache(_KEPT)(self._base)

    def _select(self, selection: Filter) -> np.ndarray:
        """Return the rows of a filter in its order, int64; bad records are never among them."""
        mask = self.base(selection) & self.in_score(selection) & self.in_sources(selection)
        rows = self._order(np.flatnonzero(mask), selection.order)
        rows.flags.writeable = False
        return rows

    def base(self, selection: Filter) -> np.ndarray:
        """Return which rows match a filter without its (charted) scores and sources, bool."""
        return self._base_of(replace(selection, score=(None, None), sources=(), order="file"))

    def _base(self, selection: Filter) -> np.ndarray:
        columns = self.index.columns
        mask = columns.regions != BAD
        mask &= _within(columns.regions, selection.regions)
        if selection.difference != (None, None):
            self._check_compared("difference")
            mask &= _within(columns.difference, selection.difference)
        mask = self._with_words(mask, selection.text)
        mask.flags.writeable = False
        return mask

    def in_score(self, selection: Filter) -> np.ndarray:
        """Return which rows are within the bounds of the score, bool."""
        return _within(self.index.columns.score, selection.score)

    def in_sources(self, selection: Filter) -> np.ndarray:
        """Return which rows are of the filter's sources, bool."""
        columns = self.index.columns
        if not selection.sources:
            return np.ones(len(columns.source), bool)
        chosen = np.array([name in selection.sources for name in columns.sources] or [False])
        return chosen[columns.source]

    def _check_compared(self, name: str) -> None:
        if self.index.columns.other is None:
            raise ConfigError(f"{name}: there are no second scores; name a file with --compare")

    def _with_words(self, mask: np.ndarray, text: str) -> np.ndarray:
        match, unwanted = parse_words(text)
        if match:
            has_words = np.zeros_like(mask)
            has_words[self.index.matching(match)] = True
            mask &= has_words
        for term in unwanted:
            mask[self.index.matching(term)] = False
        return mask

    def _order(self, rows: np.ndarray, order: str) -> np.ndarray:
        column, descending = read_order(order)
        if column == "file":
            return rows[::-1].copy() if descending else rows
        if column == RANDOM:
            return np.random.default_rng(0).permutation(rows)
        keys = self._keys(column)[rows]
        keys = -keys if descending else keys
        return rows[np.argsort(keys, kind="stable")]  # rows without a score (NaN) come last

    def _keys(self, column: str) -> np.ndarray:
        """Return the sort keys of all rows, (rows,) signed numbers."""
        columns = self.index.columns
        if column in COMPARED_ORDERS:
            self._check_compared(f"order {column}")
        if column == "difference":
            return columns.difference
        if column == "distance":
            return np.abs(columns.difference)
        if column == "source":
            names = columns.sources or [""]
            place = np.empty(len(names), np.int16)
            place[sorted(range(len(names)), key=lambda i: names[i].casefold())] = range(len(names))
            return place[columns.source]
        keys: np.ndarray = getattr(columns, column)
        return keys if keys.dtype.kind == "f" else keys.astype(np.int32)


def _within(values: np.ndarray, bounds: tuple[float | None, float | None]) -> np.ndarray:
    """Return which values are within bounds, both ends included; NaN is within none."""
    mask = np.ones(len(values), bool)
    for bound, compare in zip(bounds, (np.greater_equal, np.less_equal), strict=True):
        if bound is not None:
            # As float32: a typed 0.8 must match the stored 0.8.
            limit = np.float32(bound) if values.dtype.kind == "f" else bound
            mask &= compare(values, limit)
    return mask


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a selection: its rows, the page's number from 1, how many pages and rows."""

    rows: list[int]
    number: int
    pages: int
    total: int


def page_of(rows: np.ndarray, number: int, size: int) -> Page:
    """Return a page; a number out of range gives the nearest one."""
    pages = max(1, -(-len(rows) // size))
    number = min(max(1, number), pages)
    part = rows[(number - 1) * size : number * size]
    return Page(part.tolist(), number, pages, len(rows))
