"""HTML of the browser page, from templates that escape everything a corpus says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lavis.ui.browse.address import Address
from lavis.ui.browse.facets import CELLS, Facets, Histogram
from lavis.ui.browse.query import Page
from lavis.ui.markup import message, render
from lavis.ui.shown import ShownRecord

if TYPE_CHECKING:
    from lavis.ui.browse.desk import Opened, Score

__all__ = ["cards", "detail", "facets", "line", "message"]

_SOURCES = 12  # that are listed unfolded
_TALLEST = 60.0  # of a bar, in units of the drawing


def line(page: Page, rows: int, took: float, *, download: str, notes: Sequence[str]) -> str:
    """Return how many records there are, and where to fetch them; `took` in milliseconds."""
    return render(
        "browse_line.html.jinja", page=page, rows=rows, took=took, download=download, notes=notes
    )


def cards(
    records: Sequence[tuple[ShownRecord | str, int, Score]],
    address: Address,
    *,
    compared: bool = False,
) -> str:
    """Return a grid of records, each with its scores and a link that opens it."""
    return render("cards.html.jinja", records=records, address=address, compared=compared)


def detail(opened: Opened, address: Address, names: tuple[str, str]) -> str:
    """Return one record, large, with all its fields."""
    return render("browse_detail.html.jinja", opened=opened, address=address, names=names)


def filters_fold() -> str:
    """Return what opens all fields but the words on a narrow screen; wider ones show them."""
    return render("browse_filters.html.jinja")


def facets(found: Facets, address: Address, names: tuple[str, str]) -> str:
    """Return the histogram of scores, the sources and, of two runs, how their scores agree."""
    largest = max((count for _, count in found.sources), default=0)
    sources = [
        {
            "name": name,
            "rows": rows,
            "share": rows / largest if largest else 0.0,
            "chosen": name in address.source,
            "link": address.write(source=_toggled(address.source, name), page=1, open=None),
        }
        for name, rows in found.sources
        if rows or name in address.source
    ]
    return render(
        "browse_facets.html.jinja",
        bars=_bars(found.histogram),
        histogram=found.histogram,
        sources=sources,
        listed=_SOURCES,
        cells=_cells(found),
        comparison=found.comparison,
        edge=CELLS,
        address=address,
        names=names,
    )


def _toggled(chosen: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(one for one in chosen if one != name) if name in chosen else (*chosen, name)


def _bars(histogram: Histogram | None) -> list[dict[str, Any]]:
    """Return bars as heights by the square root, so that a bin of few rows is still seen."""
    if histogram is None:
        return []
    largest = max(max(histogram.counts), 1)
    return [
        {
            "height": _TALLEST * math.sqrt(count / largest),
            "chosen": _TALLEST * math.sqrt(chosen / largest),
            "title": (
                f"{histogram.edge(place):.3g} to {histogram.edge(place + 1):.3g}: {chosen:,}"
                + (f" of {count:,}" if chosen != count else "")
            ),
        }
        for place, (count, chosen) in enumerate(
            zip(histogram.counts, histogram.chosen, strict=True)
        )
    ]


def _cells(found: Facets) -> list[tuple[int, int, int, float]]:
    """Return cells of the comparison with how dark they are, 0.3 to 1, by the logarithm."""
    if found.comparison is None:
        return []
    largest = max((rows for _, _, rows in found.comparison.cells), default=1)
    scale = math.log1p(largest)
    return [
        (x, CELLS - 1 - y, rows, 0.3 + 0.7 * math.log1p(rows) / scale)
        for x, y, rows in found.comparison.cells
    ]
