"""Charts of a selection: its scores, its sources, and the agreement of two runs.

Shapes: N rows of the corpus, B bins of the histogram, C cells of an edge of the comparison.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavis.ui.browse.address import Address
from lavis.ui.browse.query import CorpusQuery, Filter
from lavis.ui.markup import render

BINS, CELLS = 40, 24
_NO_BIN = 255  # of rows without a score
_TALLEST = 60.0  # of a bar, in units of the drawing
_LISTED = 12  # sources that are listed unfolded


@dataclass(frozen=True)
class Histogram:
    """Scores of rows that match a filter apart from its bounds on scores.

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

    def bars(self) -> list[dict[str, Any]]:
        """Return bars whose heights follow the square root, so that small bins stay visible."""
        scale = _TALLEST / math.sqrt(max(*self.counts, 1))
        return [
            {
                "height": scale * math.sqrt(count),
                "chosen": scale * math.sqrt(chosen),
                "title": (
                    f"{self.edge(place):.3g} to {self.edge(place + 1):.3g}: {chosen:,}"
                    + (f" of {count:,}" if chosen != count else "")
                ),
            }
            for place, (count, chosen) in enumerate(zip(self.counts, self.chosen, strict=True))
        ]


@dataclass(frozen=True)
class Comparison:
    """Two runs' scores of the rows of a selection.

    Attributes:
        low, high: ends of both axes.
        cells: (place on the first axis, on the second, rows), non-empty ones only.
        rows: number with both scores.
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

    def shaded_cells(self) -> list[tuple[int, int, int, float]]:
        """Return cells from the top with their opacity, 0.3 to 1, by the logarithm of the rows."""
        scale = math.log1p(max((rows for _, _, rows in self.cells), default=1))
        return [
            (x, CELLS - 1 - y, rows, 0.3 + 0.7 * math.log1p(rows) / scale)
            for x, y, rows in self.cells
        ]


@dataclass(frozen=True)
class Facets:
    """Charts beside a selection.

    Attributes:
        sources: (name, rows) that match the filter apart from its sources, most rows first.
        histogram: None where no row of the corpus has a score.
        comparison: None without second scores.
    """

    sources: list[tuple[str, int]]
    histogram: Histogram | None
    comparison: Comparison | None

    def render(self, address: Address, names: tuple[str, str]) -> str:
        """Return the HTML; its links change the address. `names` are those of the two runs."""
        largest = max((rows for _, rows in self.sources), default=0) or 1
        sources = [
            {
                "name": name,
                "rows": rows,
                "share": rows / largest,
                "chosen": name in address.source,
                "link": address.toggle_source(name),
            }
            for name, rows in self.sources
            if rows or name in address.source
        ]
        return render(
            "browse_facets",
            bars=self.histogram.bars() if self.histogram else [],
            histogram=self.histogram,
            sources=sources,
            listed=_LISTED,
            cells=self.comparison.shaded_cells() if self.comparison else [],
            comparison=self.comparison,
            edge=CELLS,
            address=address,
            names=names,
        )


class FacetCounter:
    """Counts for filters; a score's bin is computed once, so a count is one pass over bytes."""

    def __init__(self, query: CorpusQuery) -> None:
        self.query = query
        columns = query.index.columns
        values = [one for one in (columns.score, columns.other) if one is not None]
        self._range = _range_of(values)
        self._bins = _binned(columns.score, self._range, BINS)
        self._cells = [_binned(one, self._range, CELLS) for one in values]
        self.count = functools.lru_cache(1)(self._count)  # the last counts are kept: pages turn

    def _count(self, selection: Filter) -> Facets:
        query, columns = self.query, self.query.index.columns
        base, scored = query.base(selection), query.in_score(selection)
        by_source = np.bincount(columns.source[base & scored], minlength=len(columns.sources))
        in_sources = base & query.in_sources(selection)
        selected = in_sources & scored
        return Facets(
            sources=sorted(
                ((name, int(by_source[i])) for i, name in enumerate(columns.sources)),
                key=lambda item: (-item[1], item[0]),
            ),
            histogram=self._histogram(in_sources, selected),
            comparison=self._compare(selected),
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

    def _compare(self, selected: np.ndarray) -> Comparison | None:
        columns = self.query.index.columns
        if columns.other is None or self._range is None:
            return None
        first, second = self._cells
        both = selected & (first != _NO_BIN) & (second != _NO_BIN)
        place = first[both].astype(np.int64) * CELLS + second[both]
        counts = np.bincount(place, minlength=CELLS * CELLS)
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
    numbers = np.full(len(values), _NO_BIN, np.uint8)
    if ends is not None:
        rows = np.flatnonzero(np.isfinite(values))
        low, high = ends
        # In double: float32's largest numbers have no finite range in float32.
        places = (values[rows].astype(np.float64) - low) / (high - low) * bins
        numbers[rows] = np.clip(places, 0, bins - 1).astype(np.uint8)
    return numbers


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 2 or not (np.ptp(first) and np.ptp(second)):
        return None
    value = float(np.corrcoef(first, second)[0, 1])
    return value if math.isfinite(value) else None
