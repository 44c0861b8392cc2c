"""The browser page: components and events only; `corpus_query.py` answers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.built_files import digest_of
from lavis.ui import markup
from lavis.ui.corpus_index import ScoreFile
from lavis.ui.corpus_query import CorpusQuery, Filter, export_rows, page_of
from lavis.ui.serve import load_gradio
from lavis.ui.shown import RecordViewer, ShownRecord

_ORDERS = [
    ("file order", "file"),
    ("highest score", "highest"),
    ("lowest score", "lowest"),
    ("shuffled", "random"),
]


class BrowseDesk:
    """What the page's events do.

    Args:
        viewer: shows rows.
        query: answers filters.
        out: folder of exports.
        scores: scores that are not in the records, added to exports.
        page_size: records on a page.
    """

    def __init__(
        self,
        viewer: RecordViewer,
        query: CorpusQuery,
        out: Path,
        *,
        scores: ScoreFile | None = None,
        page_size: int = 12,
    ) -> None:
        self.viewer = viewer
        self.query = query
        self.out = out
        self.scores = scores
        self.page_size = page_size

    def search(self, page: float | None, *asked: Any) -> tuple[int, str, str]:
        """Return the page's number, a line about the selection, and the records as HTML."""
        start = time.perf_counter()
        try:
            rows = self.query.select(make_filter(*asked))
        except ConfigError as error:
            return 1, markup.message(str(error), "warning"), markup.cards([])
        found = page_of(rows, int(page or 1), self.page_size)
        took = 1000 * (time.perf_counter() - start)
        line = (
            f"{found.total:,} of {len(self.query.index):,} records, page {found.number:,} of "
            f"{found.pages:,}, found in {took:,.0f} ms"
        )
        scores = self.query.index.columns.score
        cards = [(self._show(row), _or_none(float(scores[row]))) for row in found.rows]
        return found.number, markup.message(line + self._bad()), markup.cards(cards)

    def step(self, by: int, page: float | None, *asked: Any) -> tuple[int, str, str]:
        """Return a neighbouring page."""
        return self.search((page or 1) + by, *asked)

    def export(self, *asked: Any) -> str:
        """Write the selection and return where, as HTML."""
        try:
            wanted = make_filter(*asked)
            rows = self.query.select(wanted)
            target = self.out / f"selection-{digest_of(repr(wanted))[:10]}.jsonl"
            done = export_rows(self.viewer.dataset, rows, target, scores=self.scores)
        except (ConfigError, DataError, OSError) as error:
            return markup.message(f"Not exported: {error}", "warning")
        skipped = f", {done.skipped:,} could not be read" if done.skipped else ""
        return markup.message(f"{done.written:,} records written to {done.path}{skipped}")

    def _show(self, row: int) -> ShownRecord | str:
        try:
            return self.viewer.show(row)
        except RecordError as error:
            return f"Row {row}: {error.reason}"

    def _bad(self) -> str:
        index = self.query.index
        if not index.bad:
            return ""
        reasons = ", ".join(f"{n:,} {r}" for r, n in index.columns.reasons.most_common(4))
        return f" · {index.bad:,} bad records left out ({reasons})"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def read_bound(value: str | float | None, name: str) -> float | None:
    """Return a bound as a number; empty is no bound.

    Raises:
        ConfigError: not a number.
    """
    if value is None or not str(value).strip():
        return None
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ConfigError(f"{name}: {str(value)[:40]!r} is not a number")
    return number


def make_filter(
    text: str | None,
    sources: list[str] | None,
    score_low: str | float | None,
    score_high: str | float | None,
    regions_low: str | float | None,
    regions_high: str | float | None,
    order: str | None,
) -> Filter:
    """Return the filter of the page's fields; empty fields ask for nothing.

    Raises:
        ConfigError: an unknown order, no number, or bounds the wrong way round.
    """
    return Filter(
        text=(text or "").strip()[:1000],
        sources=tuple(sources or ()),
        score=(read_bound(score_low, "score"), read_bound(score_high, "score")),
        regions=(read_bound(regions_low, "regions"), read_bound(regions_high, "regions")),
        order=order or "file",  # type: ignore[arg-type]  # checked by the filter
    )


def build_page(desk: BrowseDesk, title: str) -> Any:
    """Return the page (`gradio.Blocks`)."""
    gr = load_gradio()
    columns = desk.query.index.columns
    with gr.Blocks(title=f"Browse {title}", analytics_enabled=False) as page:
        with gr.Row(equal_height=True):
            text = gr.Textbox(
                label="Words",
                placeholder='all must be there; "a phrase", begin*, -without',
                max_lines=1,
                scale=4,
                elem_id="words",
            )
            sources = gr.Dropdown(
                sorted(columns.sources), label="Sources", multiselect=True, scale=3, value=[]
            )
            order = gr.Dropdown(_ORDERS, value="file", label="Order", scale=2)
        with gr.Row(elem_classes="lv-row"):
            bounds = [
                gr.Textbox(label=label, placeholder="any", elem_id=name, max_lines=1, min_width=90)
                for label, name in (
                    ("Score from", "score-low"),
                    ("Score to", "score-high"),
                    ("Regions from", "regions-low"),
                    ("Regions to", "regions-high"),
                )
            ]
            find = gr.Button("Find", variant="primary", elem_id="find", min_width=110)
            export = gr.Button("Export", elem_id="export", min_width=110)
        line = gr.HTML(elem_id="line")
        cards = gr.HTML(elem_id="cards")
        with gr.Row(elem_classes="lv-row"):
            before = gr.Button("‹ Previous", elem_id="previous")
            number = gr.Number(value=1, label="Page", precision=0, minimum=1, elem_id="number")
            after = gr.Button("Next ›", elem_id="next")
        asked = [text, sources, *bounds, order]
        _connect(desk, page, asked, (number, line, cards), (find, before, after, export))
    return page


def _connect(desk: BrowseDesk, page: Any, asked: list[Any], shown: Any, buttons: Any) -> None:
    """Tie events to the desk; a new question starts at page 1."""
    (number, line, _), (find, before, after, export) = shown, buttons
    outputs = list(shown)

    def first(*values: Any) -> tuple[int, str, str]:
        return desk.search(1, *values)

    page.load(first, asked, outputs, api_name="load")
    find.click(first, asked, outputs, api_name="find")
    for field in asked:
        event = field.submit if hasattr(field, "submit") else field.input
        event(first, asked, outputs, api_name=False)
    asked[1].input(first, asked, outputs, api_name=False)
    asked[-1].input(first, asked, outputs, api_name=False)
    number.submit(desk.search, [number, *asked], outputs, api_name="page")
    before.click(
        lambda *values: desk.step(-1, *values), [number, *asked], outputs, api_name="previous"
    )
    after.click(lambda *values: desk.step(1, *values), [number, *asked], outputs, api_name="next")
    export.click(desk.export, asked, [line], api_name="export")
