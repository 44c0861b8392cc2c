"""What a page draws of a selection: how its scores lie, its sources, and how two runs agree.

Shapes: N rows of the corpus, B bins of the histogram, C cells of an edge of the comparison.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np

from lavis.ui.browse.index import Columns
from lavis.ui.browse.query import CorpusQuery, Filter

BINS, CELLS = 40, 24
_NO_BIN = 255  # of rows without a score


@dataclass(frozen=True)
class Histogram:
    """Scores of rows for which all of a filter holds but its bounds on scores.

    Attributes:
        low, high: ends of the first and the last bin.
        counts: (B,) rows.
        chosen: (B,) those of them within the bounds.
        unscored: rows without a score.
    """

    low: float
    high: float
    counts: list[int]
    chosen: list[int]
    unscored: int

    def edge(self, place: int) -> float:
        """Return the lower end of a bin; of `BINS` the upper end of the last."""
        return self.low + (self.high - self.low) * place / len(self.counts)


@dataclass(frozen=True)
class Comparison:
    """Two runs' scores of the rows of a selection.

    Attributes:
        low, high: ends of both axes.
        cells: (place on the first axis, on the second, rows), those with rows only.
        rows: that have both scores.
        correlation: Pearson's; None where one does not vary.
        mean: of the second score less the first; None without rows.
        higher, lower: rows whose second score is so.
    """

    low: float
    high: float
    cells: list[tuple[int, int, int]]
    rows: int
    correlation: float | None
    mean: float | None
    higher: int
    lower: int


@dataclass(frozen=True)
class Facets:
    """What is drawn beside a selection.

    Attributes:
        sources: (name, rows) for which all of the filter holds but its sources, most rows first.
        histogram: None where no row of the corpus has a score.
        comparison: None without second scores.
    """

    sources: list[tuple[str, int]]
    histogram: Histogram | None
    comparison: Comparison | None


class FacetCounter:
    """Counts for filters; a score's bin is found once, so a count is one pass over bytes."""

    def __init__(self, query: CorpusQuery) -> None:
        self.query = query
        columns = query.index.columns
        values = [columns.score] + ([] if columns.other is None else [columns.other])
        self._range = _range_of(values)
        self._bins = _binned(columns.score, self._range, BINS)
        self._cells: tuple[np.ndarray, np.ndarray] | None = None
        if columns.other is not None:
            first, second = (_binned(one, self._range, CELLS) for one in values)
            self._cells = first, second
        self._lock = threading.Lock()
        self._last: tuple[Filter, Facets] | None = None

    def count(self, wanted: Filter) -> Facets:
        """Return the counts of a filter; the last ones are kept, as pages turn."""
        with self._lock:
            if self._last is not None and self._last[0] == wanted:
                return self._last[1]
        facets = self._count(wanted)
        with self._lock:
            self._last = wanted, facets
        return facets

    def _count(self, wanted: Filter) -> Facets:
        query, columns = self.query, self.query.index.columns
        base, scored = query.base(wanted), query.in_score(wanted)
        by_source = np.bincount(columns.source[base & scored], minlength=len(columns.sources))
        in_sources = base & query.in_sources(wanted)
        selected = in_sources & scored
        return Facets(
            sources=sorted(
                ((name, int(by_source[i])) for i, name in enumerate(columns.sources)),
                key=lambda item: (-item[1], item[0]),
            ),
            histogram=self._histogram(in_sources, selected),
            comparison=self._compare(columns, selected),
        )

    def _histogram(self, rows: np.ndarray, selected: np.ndarray) -> Histogram | None:
        if self._range is None or not (self._bins != _NO_BIN).any():
            return None
        counts = np.bincount(self._bins[rows], minlength=_NO_BIN + 1)
        chosen = np.bincount(self._bins[selected], minlength=_NO_BIN + 1)
        low, high = self._range
        return Histogram(
            low, high, counts[:BINS].tolist(), chosen[:BINS].tolist(), int(counts[_NO_BIN])
        )

    def _compare(self, columns: Columns, selected: np.ndarray) -> Comparison | None:
        if self._cells is None or self._range is None:
            return None
        first, second = self._cells
        both = selected & (first != _NO_BIN) & (second != _NO_BIN)
        place = first[both].astype(np.int64) * CELLS + second[both]
        counts = np.bincount(place, minlength=CELLS * CELLS)
        assert columns.other is not None
        a, b = (one[both].astype(np.float64) for one in (columns.score, columns.other))
        difference = b - a
        filled = np.flatnonzero(counts)
        return Comparison(
            *self._range,
            cells=[(int(i) // CELLS, int(i) % CELLS, int(counts[i])) for i in filled],
            rows=len(a),
            correlation=_correlation(a, b),
            mean=float(difference.mean()) if len(a) else None,
            higher=int((difference > 0).sum()),
            lower=int((difference < 0).sum()),
        )


def _range_of(values: list[np.ndarray]) -> tuple[float, float] | None:
    """Return the ends of the axes: 0 to 1 where all scores lie there; None without scores."""
    ends = [
        float(end)
        for one in values
        if np.isfinite(one).any()
        for end in (np.nanmin(one), np.nanmax(one))
    ]
    if not ends:
        return None
    low, high = min(ends), max(ends)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _binned(values: np.ndarray, ends: tuple[float, float] | None, bins: int) -> np.ndarray:
    """Return the bin of each value, (N,) uint8; the last bin holds its upper end."""
    found = np.full(len(values), _NO_BIN, np.uint8)
    if ends is not None:
        rows = np.flatnonzero(np.isfinite(values))
        low, high = ends
        # In double: a range of float32's largest numbers has no end in float32.
        places = (values[rows].astype(np.float64) - low) / (high - low) * bins
        found[rows] = np.clip(places, 0, bins - 1).astype(np.uint8)
    return found


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 2 or not (np.ptp(first) and np.ptp(second)):
        return None
    value = float(np.corrcoef(first, second)[0, 1])
    return value if math.isfinite(value) else None
