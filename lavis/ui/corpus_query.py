"""Selections of a corpus by words, source, score and number of regions; pages and export of them.

Words: all must be there; `"two words"` is a phrase, `word*` a beginning, `-word` must not be there.
Case and accents do not count. Nothing else is special, so no text is an error.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.common.storage import AtomicFile
from lavis.datasets.base import RecordDataset
from lavis.datasets.json_values import json_line
from lavis.datasets.records import JsonLinesFile
from lavis.ui.corpus_index import BAD, CorpusIndex, ScoreFile

Order = Literal["file", "highest", "lowest", "random"]
_KEPT = 8  # selections kept, 8 bytes a row each
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')
_WORD = re.compile(r"\w")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What is asked for.

    Attributes:
        text: words, see the module.
        sources: any of these; none means all.
        score: least and greatest, None for no bound; with a bound, rows without a score drop out.
        regions: least and greatest number of regions.
        order: `random` is the same shuffle each time.
    """

    text: str = ""
    sources: tuple[str, ...] = ()
    score: tuple[float | None, float | None] = (None, None)
    regions: tuple[float | None, float | None] = (None, None)
    order: Order = "file"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise ConfigError(f"order {self.order!r}: use one of {', '.join(get_args(Order))}")
        for name in ("score", "regions"):
            low, high = getattr(self, name)
            if low is not None and high is not None and low > high:
                raise ConfigError(f"{name} from {low} to {high}: the first number is greater")


def parse_words(text: str) -> tuple[str, list[str]]:
    """Return the FTS5 expression of what must be there (empty: nothing), and what must not."""
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
    """Answers filters over an index; may be called from several threads."""

    def __init__(self, index: CorpusIndex) -> None:
        self.index = index
        self._kept: OrderedDict[Filter, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def select(self, wanted: Filter) -> np.ndarray:
        """Return the rows of a filter in its order, int64; bad records are never among them."""
        with self._lock:
            if wanted in self._kept:
                self._kept.move_to_end(wanted)
                return self._kept[wanted]
        rows = self._order(np.flatnonzero(self._mask(wanted)), wanted.order)
        rows.flags.writeable = False
        with self._lock:
            self._kept[wanted] = rows
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return rows

    def _mask(self, wanted: Filter) -> np.ndarray:
        columns = self.index.columns
        mask = columns.regions != BAD
        low, high = wanted.regions
        mask &= (columns.regions >= low) if low is not None else True
        mask &= (columns.regions <= high) if high is not None else True
        for bound, compare in zip(wanted.score, (np.greater_equal, np.less_equal), strict=True):
            if bound is not None:
                # As float32: 0.8 typed must find the stored 0.8.
                mask &= compare(columns.score, np.float32(bound))
        if wanted.sources:
            numbers = [i for i, name in enumerate(columns.sources) if name in wanted.sources]
            mask &= np.isin(columns.source, numbers)
        return self._with_words(mask, wanted.text)

    def _with_words(self, mask: np.ndarray, text: str) -> np.ndarray:
        match, unwanted = parse_words(text)
        if match:
            found = np.zeros_like(mask)
            found[self.index.matching(match)] = True
            mask &= found
        for term in unwanted:
            mask[self.index.matching(term)] = False
        return mask

    def _order(self, rows: np.ndarray, order: Order) -> np.ndarray:
        if order == "file":
            return rows
        if order == "random":
            return np.random.default_rng(0).permutation(rows)
        score = self.index.columns.score[rows]
        keys = -score if order == "highest" else score
        return rows[np.argsort(keys, kind="stable")]  # rows without a score (NaN) come last


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a selection: its rows, the page's number from 1, how many pages and rows."""

    rows: list[int]
    number: int
    pages: int
    total: int


def page_of(rows: np.ndarray, number: int, size: int) -> Page:
    """Return a page; a number outside gives the nearest there is."""
    pages = max(1, -(-len(rows) // size))
    number = min(max(1, number), pages)
    part = rows[(number - 1) * size : number * size]
    return Page(part.tolist(), number, pages, len(rows))


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: the file, rows written, and rows that could not be read."""

    path: Path
    written: int
    skipped: int


def export_rows(
    dataset: RecordDataset,
    rows: np.ndarray,
    target: Path,
    *,
    scores: ScoreFile | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Exported:
    """Write rows as LCK JSON lines, one at a time; the file is whole or not there.

    A line of a JSONL file is copied byte for byte, unless a score of another file is added to it
    as `prediction`.

    Raises:
        DataError: the target is one of the corpus' own files.
    """
    if any(os.path.realpath(target) == os.path.realpath(f.path) for f in dataset.store.files):
        raise DataError(f"{target}: is part of the corpus; choose another name")
    written = 0
    with AtomicFile(target) as output:
        for row in rows:
            tick()
            line = _line(dataset, int(row), scores)
            if line is not None:
                output.write(line + b"\n")
                written += 1
    return Exported(target, written, len(rows) - written)


def _line(dataset: RecordDataset, index: int, scores: ScoreFile | None) -> bytes | None:
    """Return a row as one line of JSON, or None where it cannot be read."""
    file, place = dataset.store.find(index)
    if isinstance(file, JsonLinesFile) and scores is None:
        return file.read_line(place).strip()
    try:
        record: dict[str, Any] = dataset.record(index)
    except RecordError:
        return None
    if scores is not None and np.isfinite(scores.values[index]):
        record = {**record, "prediction": float(scores.values[index])}
    return json_line(record)
