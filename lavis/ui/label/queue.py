"""Who judges what, and what comes next: a fixed order for each annotator, made from the seed.

Nothing is assigned at run time, so annotators need no connection to each other and a restart
continues from the files of judgements. The order is over rows: it needs no record, so a large
corpus opens at once and its bad records are skipped when they come up.
"""

from __future__ import annotations

import bisect
import random
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.base import RecordDataset
from lavis.datasets.files.images import image_size
from lavis.datasets.lck.record import check_inside
from lavis.datasets.lck.tokens import has_empty_rationale
from lavis.ui.label.judgements import Judgement, content_key


@dataclass(frozen=True, slots=True)
class LabelItem:
    """A record to judge: its row, its content's key, its id, and whether it has a rationale."""

    index: int
    key: str
    instance: str
    has_rationale: bool


def read_item(dataset: RecordDataset, index: int) -> LabelItem:
    """Return a row as an item, its image's header checked; raises `RecordError` with a `reason`."""
    row = dataset.row(index)
    record = dataset.record(index)
    key = content_key(record)
    assert row.drawing is not None
    size = image_size(row.drawing.file, dataset.config.max_pixels)
    check_inside(row.drawing.regions, size)
    has_rationale = "question" not in record or (
        record.get("rationale") is not None and not has_empty_rationale(record)
    )
    return LabelItem(index, key, str(row.fields["instance"]), has_rationale)


def drawn_rows(count: int, limit: int | None, seed: int) -> Sequence[int]:
    """Return the rows to judge: all, or `limit` of them drawn by the seed, ascending."""
    if limit is None or limit >= count:
        return range(count)
    return sorted(random.Random(f"rows {seed}").sample(range(count), limit))


class CorpusItems:
    """Items of a corpus, each read on first use; safe from several threads.

    A row's place is its index in `rows`. Bad records and duplicates of earlier content give no
    item; `rejects` and `duplicates` list those read so far.

    Args:
        rows: ascending, those that are judged.
        lock: of all readers of the data set.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        rows: Sequence[int],
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.is_whole = False  # every row was read
        self.duplicates = 0  # records whose content came before
        self.left_out = np.zeros(len(rows), np.bool_)
        self._rejects: dict[int, dict[str, object]] = {}
        self._items: dict[int, LabelItem] = {}
        self._places: dict[str, int] = {}
        self._lock = lock or threading.RLock()

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, place: int) -> LabelItem | None:
        """Return the item at a place, None where there is nothing to judge."""
        with self._lock:
            if place in self._items:
                return self._items[place]
            if self.left_out[place]:
                return None
            index = self.rows[place]
            try:
                item = read_item(self.dataset, index)
            except RecordError as error:
                source = self.dataset.source(index)
                self._rejects[place] = {**source, "index": index, "reason": error.reason}
                self.left_out[place] = True
                return None
            if self._places.setdefault(item.key, place) != place:
                self.duplicates += 1
                self.left_out[place] = True
                return None
            self._items[place] = item
            return item

    def place(self, key: str, row: int | None = None) -> int | None:
        """Return the place of a key, tried at `row` if not read yet; None where it is unknown."""
        known = self._places.get(key)
        if known is not None or row is None or self.is_whole:
            return known
        place = bisect.bisect_left(self.rows, row)
        if place == len(self.rows) or self.rows[place] != row:
            return None
        self.item(place)
        return self._places.get(key)

    def find(self, instance: str) -> int | None:
        """Return the first place read so far whose record has an id."""
        with self._lock:
            return min((p for p, i in self._items.items() if i.instance == instance), default=None)

    def check_all(self, tick: Callable[[], object] = lambda: None) -> None:
        """Read every row; raises `DataError` where there is nothing to judge."""
        for place in range(len(self.rows)):
            tick()
            self.item(place)
        self.is_whole = True
        if not self._items:
            reason = next((r["reason"] for r in self.rejects), "no rows")
            raise DataError(f"no record can be judged; the first reason: {reason}")

    @property
    def rejects(self) -> list[dict[str, object]]:
        """Bad records read so far, as `{file, line, index, reason}`, in file order."""
        with self._lock:
            return [self._rejects[place] for place in sorted(self._rejects)]

    def all(self) -> list[LabelItem]:
        """Return the items read so far, in file order."""
        with self._lock:
            return [self._items[place] for place in sorted(self._items)]


@dataclass(frozen=True, slots=True)
class LabelProgress:
    """An annotator's progress: records judged, skipped, in the queue, and left as unsure."""

    done: int
    skipped: int
    total: int
    unsure: int = 0

    @property
    def share(self) -> float:
        """Judged, unsure or skipped, 0 to 1."""
        seen = self.done + self.unsure + self.skipped
        return min(1.0, seen / self.total) if self.total else 1.0


class LabelQueue:
    """Order and assignment of items.

    Args:
        items: in file order.
        annotators: names; the order matters where not everybody judges everything.
        per_item: how many people judge each item; None for all.
        seed: of the order, None for file order. People of one item see it at different times only
            as far as their queues differ.

    Raises:
        ConfigError: more people an item than there are.
    """

    def __init__(
        self,
        items: CorpusItems,
        annotators: Sequence[str],
        *,
        per_item: int | None = None,
        seed: int | None = 0,
    ) -> None:
        people = len(annotators)
        per_item = people if per_item is None else per_item
        if not 1 <= per_item <= people:
            raise ConfigError(f"--per-item {per_item}: use 1 to {people}, the number of annotators")
        self.items = items
        self.per_item = per_item
        places = list(range(len(self.items)))
        if seed is not None:
            random.Random(f"order {seed}").shuffle(places)
        order, turn = np.array(places, np.int64), np.arange(len(places))
        self._order: dict[str, np.ndarray] = {}  # places in the order of the queue
        self._rank: dict[str, np.ndarray] = {}  # of each place in it, -1 where it is not in it
        for number, name in enumerate(annotators):
            mine = order[(number - turn) % people < per_item]
            self._order[name] = mine
            self._rank[name] = np.full(len(places), -1, np.int64)
            self._rank[name][mine] = np.arange(len(mine))

    def queue(self, annotator: str) -> list[LabelItem]:
        """Return all items of an annotator's queue, in order; reads all remaining rows."""
        return list(self._walk(annotator, range(len(self._order[annotator]))))

    def rank(self, annotator: str, key: str, row: int | None = None) -> int | None:
        """Return an item's number in the annotator's queue, from 0, None where it is missing."""
        place = self.items.place(key, row)
        rank = -1 if place is None else int(self._rank[annotator][place])
        return rank if rank >= 0 else None

    def item(self, annotator: str, key: str, row: int | None = None) -> LabelItem | None:
        """Return an annotator's item of a key, or None where it is not in the queue."""
        rank = self.rank(annotator, key, row)
        return None if rank is None else self._at(annotator, rank)

    def named(self, annotator: str, text: str) -> LabelItem | None:
        """Return the item of a number in the queue (from 1), a key or a record's id."""
        size = len(self._order[annotator])
        if text.isdecimal() and len(text) < 18 and 1 <= int(text) <= size:
            return next(self._walk(annotator, range(int(text) - 1, size)), None)
        place = self.items.place(text)
        place = self.items.find(text) if place is None else place
        rank = -1 if place is None else int(self._rank[annotator][place])
        return self._at(annotator, rank) if rank >= 0 else None

    def following(
        self, annotator: str, done: Collection[str], after: str | None = None
    ) -> LabelItem | None:
        """Return the next unjudged item from `after` on, wrapping around, or None."""
        size = len(self._order[annotator])
        last = None if after is None else self.rank(annotator, after)
        start = 0 if last is None else last + 1
        ranks = ((start + step) % size for step in range(size))
        return next((i for i in self._walk(annotator, ranks) if i.key not in done), None)

    def before(self, annotator: str, key: str | None) -> LabelItem | None:
        """Return the item before one, judged or not; of None (the end), the last."""
        rank = None if key is None else self.rank(annotator, key)
        end = len(self._order[annotator]) if rank is None else rank
        return next(self._walk(annotator, range(end - 1, -1, -1)), None)

    def after(self, annotator: str, key: str) -> LabelItem | None:
        """Return the item after one, judged or not, None at the end."""
        rank = self.rank(annotator, key)
        start = 0 if rank is None else rank + 1
        return next(self._walk(annotator, range(start, len(self._order[annotator]))), None)

    def progress(self, annotator: str, judged: Mapping[str, Judgement]) -> LabelProgress:
        """Count an annotator's judgements of items in the queue.

        While rows are unread, a judgement of an unread record counts as in the queue, and a record
        that cannot be judged in the total.
        """
        counts = {"accept": 0, "reject": 0, "skip": 0, "unsure": 0}
        mine = self._rank[annotator]
        for key, judgement in judged.items():
            place = self.items.place(key)
            if not self.items.is_whole if place is None else mine[place] >= 0:
                counts[judgement.verdict] += 1
        total = int((~self.items.left_out & (mine >= 0)).sum())
        done = counts["accept"] + counts["reject"]
        return LabelProgress(done, counts["skip"], total, counts["unsure"])

    def _at(self, annotator: str, rank: int) -> LabelItem | None:
        return self.items.item(int(self._order[annotator][rank]))

    def _walk(self, annotator: str, ranks: Iterable[int]) -> Iterator[LabelItem]:
        """Yield the items at some ranks, without those that cannot be judged."""
        for rank in ranks:
            item = self._at(annotator, rank)
            if item is not None:
                yield item
