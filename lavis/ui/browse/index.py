"""An on-disk index of a corpus: built in one pass, opened at once, a few bytes a row in memory.

SQLite's FTS5 comes with Python, needs no service or package, keeps the words on disk and finds the
rows with given words in milliseconds. A column database has no such index, and for three small
columns it would only repeat numpy. Texts are not stored (a contentless table): rows are shown from
the corpus itself, by offset.

Memory: 9 bytes a row (score, regions, source, length) beside the corpus' own offsets; scores of
other files override those of the records without rebuilding the index.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lavis.common.errors import RecordError, finite, record_errors
from lavis.datasets.files.built import built_once, cache_folder, digest_of
from lavis.datasets.lck.dataset import LckDataset
from lavis.datasets.lck.text import qar_text
from lavis.datasets.lck.tokens import read_region_ids
from lavis.processors.region import tokens_to_text

logger = logging.getLogger(__name__)

VERSION = 2  # of the written form
BAD = 65535  # in the column of regions: the record cannot be read
_BATCH = 2000
_MAX_SOURCES = 255
OTHER = "(other)"  # sources beyond the first 255
NO_SOURCE = "(none)"


@dataclass
class Columns:
    """Numbers of every row.

    Attributes:
        score: (rows,) float32, NaN without one.
        regions: (rows,) uint16, number of regions, `BAD` for a bad record.
        source: (rows,) uint8, index in `sources`.
        length: (rows,) uint16, words of question, answer and rationale together.
        sources: names in order of first appearance.
        reasons: fixed phrase of a bad record's reason -> rows.
        other: (rows,) float32, a second run's scores, or None.
    """

    score: np.ndarray
    regions: np.ndarray
    source: np.ndarray
    length: np.ndarray
    sources: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    other: np.ndarray | None = None

    @property
    def difference(self) -> np.ndarray:
        """Return the second score less the first, NaN where one is missing."""
        assert self.other is not None, "no second scores"
        return self.other - self.score

    @classmethod
    def empty(cls, rows: int) -> Columns:
        """Return columns of bad rows."""
        return cls(
            np.full(rows, np.nan, np.float32),
            np.full(rows, BAD, np.uint16),
            np.zeros(rows, np.uint8),
            np.zeros(rows, np.uint16),
        )

    def add(self, rows: Sequence[IndexedRow]) -> None:
        """Add consecutive rows."""
        part = slice(rows[0].row, rows[0].row + len(rows))
        for name in ("score", "regions", "length"):
            getattr(self, name)[part] = [getattr(row, name) for row in rows]
        names = dict.fromkeys(row.source for row in rows if row.source)
        numbers = {"": 0, **{name: self.source_number(name) for name in names}}
        self.source[part] = [numbers[row.source] for row in rows]
        self.reasons.update(row.reason for row in rows if row.reason)

    def source_number(self, name: str) -> int:
        """Return a source's index, added where it is new."""
        if name not in self.sources:
            if len(self.sources) >= _MAX_SOURCES:
                self.sources += [OTHER] if OTHER not in self.sources else []
                return self.sources.index(OTHER)
            self.sources.append(name)
        return self.sources.index(name)


def read_number(value: Any) -> float:
    """Return a finite number, or NaN for anything else."""
    number = finite(value)
    return math.nan if number is None else number


class CorpusIndex:
    """An open index of a corpus, from a file made by `build_index`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self.connect() as connection:
            stored = dict(connection.execute("SELECT name, value FROM stored"))
        head = json.loads(stored["head"])
        self.columns = Columns(
            np.frombuffer(stored["score"], np.float32),
            np.frombuffer(stored["regions"], np.uint16),
            np.frombuffer(stored["source"], np.uint8),
            np.frombuffer(stored["length"], np.uint16),
            head["sources"],
            Counter(head["reasons"]),
        )
        self.bad = int((self.columns.regions == BAD).sum())

    def __len__(self) -> int:
        return len(self.columns.score)

    def use_scores(self, first: np.ndarray | None, second: np.ndarray | None = None) -> None:
        """Use scores of other files, (rows,) each: in place of the records', and beside them."""
        bad = self.columns.regions == BAD
        if first is not None:
            self.columns.score = np.where(bad, np.float32(np.nan), first)
        if second is not None:
            self.columns.other = np.where(bad, np.float32(np.nan), second)

    @contextlib.contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """Open the file for reading; a connection belongs to one thread."""
        address = f"{self.path.resolve().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True)
        try:
            yield connection
        finally:
            connection.close()

    def matching(self, match: str) -> np.ndarray:
        """Return the rows that match an FTS5 expression, ascending int64."""
        with self.connect() as connection:
            rows = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,))
            return np.fromiter((row for (row,) in rows), np.int64)


def open_index(
    dataset: LckDataset,
    *,
    score_key: str = "prediction",
    cache_dir: str | None = None,
    workers: int = 0,
    tick: Callable[[int], object] = lambda rows: None,
) -> CorpusIndex:
    """Return the index of a corpus, built on first use and kept while no file changes.

    Args:
        score_key: the record's field that is its score.
        workers: processes that read records beside this one.
        tick: called with a number of rows as they are read.

    Example:
        >>> dataset = open_corpus(["kept.jsonl"], "images")
        >>> rows = CorpusQuery(open_index(dataset)).select(Filter(text="hat"))
    """
    mapping = dataset.mapping.file.identity() if dataset.mapping else None
    parts = ["browse", VERSION, score_key, mapping, *dataset.store.whole_identity()]
    target = cache_folder(cache_dir) / f"{digest_of(parts)}.sqlite"

    def build(temporary: Path) -> None:
        from torch.utils.data import DataLoader  # `--help` needs no torch

        logger.info("indexing %d rows to %s, once", len(dataset), target)
        rows = len(dataset)
        parts: Iterable[list[IndexedRow]] = DataLoader(
            _IndexedRows(dataset, score_key),  # type: ignore[arg-type]  # map-style by its methods
            batch_size=None,
            sampler=[
                range(i, min(i + _BATCH, len(dataset))) for i in range(0, len(dataset), _BATCH)
            ],
            num_workers=workers,
            collate_fn=list,
        )
        build_index(temporary, rows, parts, tick=tick)

    return CorpusIndex(built_once(target, build))


class IndexedRow(NamedTuple):
    """Index entry of a row; see `Columns`. A bad one has a reason and no words."""

    row: int
    text: str = ""
    names: str = ""
    score: float = math.nan
    regions: int = BAD
    source: str = ""
    length: int = 0
    reason: str = ""


class _IndexedRows:
    """Item `rows` (a range) is the index entries of these rows; runs in loader processes."""

    def __init__(self, dataset: LckDataset, score_key: str) -> None:
        self._dataset, self._score_key = dataset, score_key

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, rows: range) -> list[IndexedRow]:
        return [self._read(row) for row in rows]

    def _read(self, row: int) -> IndexedRow:
        try:
            with record_errors("malformed record"):
                record = self._dataset.store.read(row)
                text, names, count = searchable(self._dataset, record)
                return IndexedRow(
                    row,
                    text,
                    names,
                    score=read_number(record.get(self._score_key)),
                    regions=min(count, BAD - 1),
                    source=str(record.get("source") or NO_SOURCE)[:200],
                    length=min(len(text.split()), 65535),
                )
        except RecordError as error:
            return IndexedRow(row, reason=error.reason.split(":", 1)[0])


def build_index(
    path: Path,
    count: int,
    parts: Iterable[Sequence[IndexedRow]],
    *,
    tick: Callable[[int], object] = lambda rows: None,
) -> None:
    """Write the index of a corpus to a new file, from parts of consecutive rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # A killed build leaves a temporary file that is never opened: no journal is needed.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, names, content='', columnsize=0, "
            # Without M* the combining signs of Hindi, Thai and Tamil would split their words.
            "tokenize=\"unicode61 remove_diacritics 2 categories 'L* N* Co M*'\")"
        )
        connection.execute("CREATE TABLE stored (name TEXT PRIMARY KEY, value BLOB)")
        connection.execute("BEGIN")
        columns = Columns.empty(count)
        for rows in parts:
            connection.executemany(
                "INSERT INTO words(rowid, text, names) VALUES (?, ?, ?)", (row[:3] for row in rows)
            )
            columns.add(rows)
            tick(len(rows))
        connection.execute("INSERT INTO words(words) VALUES ('optimize')")
        head = {"sources": columns.sources, "reasons": dict(columns.reasons)}
        values = {
            "head": json.dumps(head).encode("ascii"),
            "score": columns.score.astype(np.float32).tobytes(),
            "regions": columns.regions.tobytes(),
            "source": columns.source.tobytes(),
            "length": columns.length.tobytes(),
        }
        connection.executemany("INSERT INTO stored VALUES (?, ?)", values.items())
        connection.execute("COMMIT")
    finally:
        connection.close()


def searchable(dataset: LckDataset, record: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return a record's text with regions as `[k]`, their names, and how many there are.

    Raises:
        RecordError: the record cannot be read.
    """
    regions = dataset.find_regions(record, read_region_ids(record, "region"))
    tags = dataset.tags(regions)
    text = qar_text(
        record, include_rationale=True, write=lambda tokens: tokens_to_text(tokens, tags)
    )
    return text, " ".join(region.object_name for region in regions), len(regions)
