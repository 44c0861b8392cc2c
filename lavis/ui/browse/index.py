"""An index of a corpus on disk: made in one pass, opened at once, a few bytes a row in memory.

SQLite's FTS5 comes with Python, needs no service and no other package, keeps the words on disk and
answers "which rows hold these words" in milliseconds. A database of columns has no such index, and
for three small columns it would be a dependency that only repeats numpy. Texts are not stored (a
contentless table): rows are shown from the corpus itself, by offset.

Memory: 9 bytes a row (score, regions, source, length) beside the corpus' own offsets; scores of
other files lie over those of the records and do not make the index anew.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lavis.common.errors import RecordError, finite, record_errors
from lavis.datasets.files.built import built_once, cache_folder, digest_of
from lavis.datasets.lck.dataset import LckDataset
from lavis.datasets.lck.record import read_region_ids
from lavis.datasets.lck.text import qar_text
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
    """What is known of every row.

    Attributes:
        score: (rows,) float32, NaN without one.
        regions: (rows,) uint16, number of regions, `BAD` for a bad record.
        source: (rows,) uint8, place in `sources`.
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

    def add(self, chunk: Chunk) -> None:
        """Take over the rows of a chunk."""
        first = chunk.words[0][0]
        part = slice(first, first + len(chunk.words))
        self.score[part] = chunk.score
        self.regions[part] = chunk.regions
        self.length[part] = chunk.length
        names = dict.fromkeys(name for name in chunk.source if name)
        numbers = {"": 0, **{name: self.source_number(name) for name in names}}
        self.source[part] = [numbers[name] for name in chunk.source]
        self.reasons.update(chunk.reasons)

    def source_number(self, name: str) -> int:
        """Return a source's place, made where it is new."""
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
    """The index of a corpus, opened.

    Args:
        path: a file made by `build_index`.
    """

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
        """Take scores of other files, (rows,) each, in place of the records' and beside them."""
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
        """Return the rows that an FTS5 expression matches, ascending int64."""
        with self.connect() as connection:
            found = connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,))
            return np.fromiter((row for (row,) in found), np.int64)


def open_index(
    dataset: LckDataset,
    *,
    score_key: str = "prediction",
    cache_dir: str | None = None,
    workers: int = 0,
    tick: Callable[[int], object] = lambda rows: None,
) -> CorpusIndex:
    """Return the index of a corpus, built on first use and found again while no file changes.

    Args:
        dataset: the corpus.
        score_key: the record's field that is its score.
        cache_dir: where the index is kept.
        workers: processes that read records beside this one.
        tick: called with a number of rows as they are read.
    """
    mapping = dataset.mapping.file.identity() if dataset.mapping else None
    parts = ["browse", VERSION, score_key, mapping, *dataset.store.whole_identity()]
    target = cache_folder(cache_dir) / f"{digest_of(parts)}.sqlite"

    def build(temporary: Path) -> None:
        logger.info("indexing %d rows to %s, once", len(dataset), target)
        chunks = read_chunks(dataset, score_key, workers)
        build_index(temporary, len(dataset), chunks, tick=tick)

    return CorpusIndex(built_once(target, build))


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is indexed of some rows: (row, text, region names), and the columns; see `Columns`."""

    words: list[tuple[int, str, str]]
    score: list[float]
    regions: list[int]
    source: list[str]
    length: list[int]
    reasons: Counter[str]


class ChunkReader:
    """Reads rows for the index; one is made in each process."""

    made: ClassVar[ChunkReader]

    def __init__(self, dataset: LckDataset, score_key: str) -> None:
        self.dataset = dataset
        self.score_key = score_key

    @classmethod
    def start(cls, dataset: LckDataset, score_key: str) -> None:
        """Make the reader of a process."""
        cls.made = cls(dataset, score_key)

    @classmethod
    def read_in_process(cls, rows: range) -> Chunk:
        """Read with the reader of this process."""
        return cls.made.read(rows)

    def read(self, rows: range) -> Chunk:
        """Return some rows; a bad one has no words."""
        chunk = Chunk([], [], [], [], [], Counter())
        for row in rows:
            text, names, count, score, source = "", "", BAD, math.nan, ""
            try:
                with record_errors("malformed record"):
                    record = self.dataset.store.read(row)
                    text, names, count = searchable(self.dataset, record)
                    count = min(count, BAD - 1)
                    score = read_number(record.get(self.score_key))
                    source = str(record.get("source") or NO_SOURCE)[:200]
            except RecordError as error:
                chunk.reasons[error.reason.split(":", 1)[0]] += 1
            chunk.words.append((row, text, names))
            chunk.score.append(score)
            chunk.regions.append(count)
            chunk.source.append(source)
            chunk.length.append(min(len(text.split()), 65535))
        return chunk


def read_chunks(dataset: LckDataset, score_key: str, workers: int = 0) -> Iterator[Chunk]:
    """Yield all rows in order, read in other processes where there are some."""
    total = len(dataset)
    ranges = (range(i, min(i + _BATCH, total)) for i in range(0, total, _BATCH))
    if workers < 1:
        yield from map(ChunkReader(dataset, score_key).read, ranges)
        return
    setup = (dataset, score_key)
    with ProcessPoolExecutor(workers, initializer=ChunkReader.start, initargs=setup) as pool:
        running: deque[Future[Chunk]] = deque()
        for rows in ranges:  # a few ahead: finished texts must not pile up
            running.append(pool.submit(ChunkReader.read_in_process, rows))
            if len(running) > 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def build_index(
    path: Path,
    rows: int,
    chunks: Iterable[Chunk],
    *,
    tick: Callable[[int], object] = lambda rows: None,
) -> None:
    """Write the index of a corpus to a new file; see `open_index`."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # A killed build leaves a temporary file that is never opened: no journal is needed.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute(
            "CREATE VIRTUAL TABLE words USING fts5(text, names, content='', columnsize=0, "
            # Without M* the signs of Hindi, Thai and Tamil letters would part their words.
            "tokenize=\"unicode61 remove_diacritics 2 categories 'L* N* Co M*'\")"
        )
        connection.execute("CREATE TABLE stored (name TEXT PRIMARY KEY, value BLOB)")
        connection.execute("BEGIN")
        columns = Columns.empty(rows)
        for chunk in chunks:
            connection.executemany(
                "INSERT INTO words(rowid, text, names) VALUES (?, ?, ?)", chunk.words
            )
            columns.add(chunk)
            tick(len(chunk.words))
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
