"""Who judges what, and what comes next: a fixed order for each annotator, made from the seed.

Nothing is handed out at run time, so annotators need no connection to each other and a restart
goes on where the files of judgements end.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.base import RecordDataset
from lavis.datasets.lck import has_empty_rationale
from lavis.datasets.lck_record import check_inside
from lavis.datasets.pictures import picture_size
from lavis.ui.judgements import Judgement, content_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """A record to judge: its row, the key of its content, its id, and whether it gives a reason."""

    index: int
    key: str
    instance: str
    has_rationale: bool


@dataclass
class Items:
    """Records that can be judged, in file order, and what was left out.

    Attributes:
        rejects: `{file, line, index, reason}` of bad records.
        duplicates: records whose content came before.
    """

    items: list[Item] = field(default_factory=list)
    rejects: list[dict[str, object]] = field(default_factory=list)
    duplicates: int = 0


def read_items(
    dataset: RecordDataset,
    *,
    limit: int | None = None,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Items:
    """Return the records that can be judged; bad ones (picture headers included) are set aside.

    Args:
        dataset: the corpus.
        limit: read only so many rows, drawn at random by the seed.
        seed: of that draw.
        tick: called for every row.

    Raises:
        DataError: none is left.
    """
    rows: Collection[int] = range(len(dataset))
    if limit is not None and limit < len(dataset):
        rows = sorted(random.Random(f"rows {seed}").sample(range(len(dataset)), limit))
    found = Items()
    seen: set[str] = set()
    for index in rows:
        tick()
        try:
            row = dataset.row(index)
            record = dataset.record(index)
            key = content_key(record)
            assert row.drawing is not None
            size = picture_size(row.drawing.file, dataset.config.max_pixels)
            check_inside(row.drawing.regions, size)
        except RecordError as error:
            reject = {**dataset.source(index), "index": index, "reason": error.reason}
            found.rejects.append(reject)
            continue
        if key in seen:
            found.duplicates += 1
            continue
        seen.add(key)
        has_rationale = "question" not in record or (
            record.get("rationale") is not None and not has_empty_rationale(record)
        )
        instance = str(row.fields["instance"])
        found.items.append(Item(index, key, instance, has_rationale))
    if not found.items:
        reason = found.rejects[0]["reason"] if found.rejects else "no rows"
        raise DataError(f"no record can be judged; the first reason: {reason}")
    return found


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an annotator is: records judged, skipped, and in the queue."""

    done: int
    skipped: int
    total: int

    @property
    def share(self) -> float:
        """Judged or skipped, 0 to 1."""
        return (self.done + self.skipped) / self.total if self.total else 1.0


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
        items: Sequence[Item],
        annotators: Sequence[str],
        *,
        per_item: int | None = None,
        seed: int | None = 0,
    ) -> None:
        people = len(annotators)
        per_item = people if per_item is None else per_item
        if not 1 <= per_item <= people:
            raise ConfigError(f"--per-item {per_item}: use 1 to {people}, the number of annotators")
        order = list(items)
        if seed is not None:
            random.Random(f"order {seed}").shuffle(order)
        self.per_item = per_item
        self.queues: dict[str, list[Item]] = {
            name: [item for i, item in enumerate(order) if (rank - i) % people < per_item]
            for rank, name in enumerate(annotators)
        }
        self._places = {
            name: {item.key: i for i, item in enumerate(queue)}
            for name, queue in self.queues.items()
        }

    def item(self, annotator: str, key: str) -> Item | None:
        """Return an annotator's item of a key, or None where it is not in the queue."""
        place = self._places[annotator].get(key)
        return None if place is None else self.queues[annotator][place]

    def place(self, annotator: str, key: str) -> int:
        """Return an item's place in the annotator's queue, from 0."""
        return self._places[annotator][key]

    def following(
        self, annotator: str, done: Collection[str], after: str | None = None
    ) -> Item | None:
        """Return the next item without a judgement, from `after` on and then round from the start.

        None when everything is judged or skipped.
        """
        queue = self.queues[annotator]
        start = 0 if after is None else self._places[annotator][after] + 1
        for step in range(len(queue)):
            item = queue[(start + step) % len(queue)]
            if item.key not in done:
                return item
        return None

    def before(self, annotator: str, key: str | None) -> Item | None:
        """Return the item before one, judged or not; of None (the end), the last."""
        queue = self.queues[annotator]
        place = len(queue) if key is None else self._places[annotator][key]
        return queue[place - 1] if place > 0 else None

    def progress(self, annotator: str, judged: Mapping[str, Judgement]) -> Progress:
        """Count an annotator's judgements of items in the queue."""
        verdicts = [judged[i.key].verdict for i in self.queues[annotator] if i.key in judged]
        skipped = verdicts.count("skip")
        return Progress(len(verdicts) - skipped, skipped, len(self.queues[annotator]))
