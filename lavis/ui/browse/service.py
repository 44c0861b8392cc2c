"""The browser page's event handlers: from an address to the parts of the page."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.files.built import digest_of
from lavis.ui.browse.address import Address
from lavis.ui.browse.export import export_rows, row_line
from lavis.ui.browse.facets import FacetCounter
from lavis.ui.browse.query import COMPARED_ORDERS, ORDERS, RANDOM, CorpusQuery, Filter, page_of
from lavis.ui.browse.score_files import ScoreFile
from lavis.ui.markup import message, render
from lavis.ui.shown import RecordViewer, ShownRecord

_AT_A_TIME = 256  # rows of a download read before they are sent
_FOLDED = 400  # characters of a field's value from which on it is folded
_LARGE = 1600  # pixels of the longest side of an image that is shown large
_LONGEST = 20_000  # characters of a field's value that are shown


@dataclass(frozen=True)
class Score:
    """A row's scores, None where there are none."""

    first: float | None
    second: float | None

    @property
    def difference(self) -> float | None:
        """The second score less the first."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first


@dataclass(frozen=True)
class View:
    """What an address shows: HTML of each part, the page's number, and the address corrected."""

    address: str
    number: int
    line: str
    facets: str
    cards: str
    detail: str


class BrowseService:
    """Answers addresses; may be called from several threads.

    Args:
        out: folder for exports on this machine; None offers downloads only.
        scores: scores that are not in the records, added to exports.
        compared: a second run's scores.
        name: of the corpus, in names of downloads.
    """

    def __init__(
        self,
        viewer: RecordViewer,
        query: CorpusQuery,
        out: Path | None = None,
        *,
        scores: ScoreFile | None = None,
        compared: ScoreFile | None = None,
        page_size: int = 12,
        name: str = "corpus",
    ) -> None:
        self.viewer, self.query, self.out = viewer, query, out
        self.scores, self.compared, self.page_size = scores, compared, page_size
        self.facets = FacetCounter(query)
        self.name = re.sub(r"[^A-Za-z0-9_-]+", "-", name.split(".")[0]).strip("-") or "corpus"

    @property
    def score_names(self) -> tuple[str, str]:
        """The page's names of the two runs."""
        first = self.scores.name if self.scores else "records"
        second = self.compared.name if self.compared else ""
        return (first, second) if first != second else (f"{first} (1)", f"{second} (2)")

    @property
    def orders(self) -> list[tuple[str, str]]:
        """Orders as (label, name), the file's first."""
        columns = {**ORDERS, **(COMPARED_ORDERS if self.compared else {})}
        names = [
            (title, column + ending)
            for column, titles in columns.items()
            for title, ending in zip(titles, ("", "-desc"), strict=True)
        ]
        return [*names, ("shuffled", RANDOM)]

    def show(self, query: str | None) -> View:
        """Return what an address shows; its line states what is wrong with the address."""
        start = time.perf_counter()
        address = Address.read(query)
        try:
            selection = address.filter()
            rows = self.query.select(selection)
        except ConfigError as error:
            line = message(str(error), "warning")
            return View(address.write(), 1, line, "", self._cards([], address), "")
        page = page_of(rows, address.page, self.page_size)
        facets = self.facets.count(selection)
        line = render(
            "browse_line",
            page=page,
            rows=len(self.query.index),
            took=1000 * (time.perf_counter() - start),
            download=f"download{address.write(page=1, open=None)}" if page.total else "",
            notes=self._notes(selection),
        )
        shown_at = address.write(page=page.number)
        address = Address.read(shown_at)
        return View(
            shown_at,
            page.number,
            line,
            facets.render(address, self.score_names),
            self._cards(page.rows, address),
            self._detail(address, rows),
        )

    def detail(self, query: str | None) -> str:
        """Return the record that an address shows large, as HTML, or nothing."""
        address = Address.read(query)
        try:
            rows = self.query.select(address.filter())
        except ConfigError:
            rows = np.zeros(0, np.int64)
        return self._detail(address, rows)

    def _cards(self, rows: list[int], address: Address) -> str:
        records = [(self._show(row), row, self.score(row)) for row in rows]
        compared = self.compared is not None
        return render("cards", records=records, address=address, compared=compared)

    def _detail(self, address: Address, rows: np.ndarray) -> str:
        row = address.open
        if row is None:
            return ""
        known = row < len(self.query.index)
        places = np.flatnonzero(rows == row) if known else np.zeros(0, np.int64)
        place = int(places[0]) if len(places) else None
        before, after = (
            int(rows[place + step]) if place is not None and 0 <= place + step < len(rows) else None
            for step in (-1, 1)
        )
        return render(
            "browse_detail",
            shown=self._show(row, _LARGE) if known else f"Row {row}: the corpus has no such row.",
            row=row,
            score=self.score(row) if known else Score(None, None),
            fields=self._fields(row) if known else [],
            source=self._source(row) if known else "",
            place=None if place is None else place + 1,
            total=len(rows),
            before=before,
            after=after,
            address=address,
            names=self.score_names,
        )

    def export(self, query: str | None) -> str:
        """Write the selection into the folder of this machine and return where, as HTML."""
        if self.out is None:
            return message("Not exported: no folder was named with --out", "warning")
        try:
            selection = Address.read(query).filter()
            rows = self.query.select(selection)
            target = self.out / self.file_name(selection)
            done = export_rows(self.viewer.dataset, rows, target, scores=self.scores)
        except (ConfigError, DataError, OSError) as error:
            return message(f"Not exported: {error}", "warning")
        skipped = f", {done.skipped:,} could not be read" if done.skipped else ""
        return message(f"{done.written:,} records written to {done.path}{skipped}")

    def file_name(self, selection: Filter) -> str:
        """Return a file name that is a function of the selection."""
        return f"{self.name}-{digest_of(repr(selection))[:10]}.jsonl"

    def lines(self, selection: Filter) -> Iterator[bytes]:
        """Yield the selection as JSON lines, some rows at a time, whatever its size."""
        rows = self.query.select(selection)
        for start in range(0, len(rows), _AT_A_TIME):
            with self.viewer.lock:  # readers of Parquet and tar files are shared
                lines = [
                    row_line(self.viewer.dataset, int(row), self.scores)
                    for row in rows[start : start + _AT_A_TIME]
                ]
            yield b"".join(line + b"\n" for line in lines if line is not None)

    def score(self, row: int) -> Score:
        """Return a row's scores."""
        columns = self.query.index.columns
        second = None if columns.other is None else _or_none(float(columns.other[row]))
        return Score(_or_none(float(columns.score[row])), second)

    def _show(self, row: int, max_side: int | None = None) -> ShownRecord | str:
        try:
            return self.viewer.show(row, max_side=max_side)
        except RecordError as error:
            return f"Row {row}: {error.reason}"

    def _fields(self, row: int) -> list[tuple[str, str, bool]]:
        try:
            with self.viewer.lock:
                record = self.viewer.dataset.record(row)
        except RecordError:
            return []
        texts = {
            str(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in record.items()
        }
        return [(name, text[:_LONGEST], len(text) > _FOLDED) for name, text in texts.items()]

    def _source(self, row: int) -> str:
        place = self.viewer.dataset.source(row)
        kind = "line" if "line" in place else "row"
        return f"{place['file']}, {kind} {place[kind]}"

    def _notes(self, selection: Filter) -> list[str]:
        index = self.query.index
        notes = []
        unknown = [name for name in selection.sources if name not in index.columns.sources]
        if unknown:
            notes.append(f"no such source: {', '.join(name[:40] for name in unknown[:4])}")
        if index.bad:
            reasons = ", ".join(f"{n:,} {r}" for r, n in index.columns.reasons.most_common(4))
            notes.append(f"{index.bad:,} bad records left out ({reasons})")
        return notes


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
