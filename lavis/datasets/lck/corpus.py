"""Statistics of a corpus and its bad records, in one pass with bounded memory.

Memory grows by 24 bytes a row (three hashes, for duplicates) and about 200 bytes an image.
"""

from __future__ import annotations

import array
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lavis.common.errors import RecordError
from lavis.datasets.base import RecordDataset
from lavis.datasets.files.images import decode_image, image_size
from lavis.datasets.lck.record import check_inside, has_empty_rationale, name_hash
from lavis.datasets.rows import Row

Images = Literal["none", "header", "decode"]
_QUANTILES = (0, 50, 90, 99, 100)


def _hashes() -> array.array[int]:
    return array.array("Q")


@dataclass
class CorpusSummary:
    """Counts over the rows seen so far.

    Attributes:
        rows: rows read, bad ones included.
        reasons: fixed phrase of a reject's reason -> rows.
        regions: number of regions -> rows.
        sources: the record's `source` -> rows.
        labels: `accept`, `reject` or `none` -> rows.
        words: number of blank-separated words before the text processor cuts -> rows.
        cut: rows whose text the processor cuts.
        empty_rationales: good rows with an empty rationale.
        instances, contents, images: 8-byte hashes, one a good row.
    """

    rows: int = 0
    cut: int = 0
    empty_rationales: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    regions: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)
    instances: array.array[int] = field(default_factory=_hashes)
    contents: array.array[int] = field(default_factory=_hashes)
    images: array.array[int] = field(default_factory=_hashes)

    def add(self, row: Row, record: dict[str, Any], limit: int | None) -> None:
        """Count a good row; `limit` is the text processor's number of words."""
        drawing = row.drawing
        assert drawing is not None
        words = max(text.count(" ") + 1 for text in row.all_texts)
        self.rows += 1
        self.cut += limit is not None and words > limit
        self.empty_rationales += has_empty_rationale(record)
        self.regions[len(drawing.regions)] += 1
        self.sources[str(record.get("source", "(none)"))] += 1
        label = row.targets.get("label")
        self.labels["none" if label is None else ("reject", "accept")[label]] += 1
        self.words[words] += 1
        boxes = [region.box for region in drawing.regions]
        self.instances.append(name_hash(str(row.fields.get("instance"))))
        self.contents.append(name_hash(json.dumps([drawing.file.name, row.all_texts, boxes])))
        self.images.append(name_hash(drawing.file.name))

    def reject(self, reason: str) -> None:
        """Count a bad row."""
        self.rows += 1
        self.reasons[reason.split(":", 1)[0]] += 1

    def merge(self, other: CorpusSummary) -> None:
        """Add the counts of other rows."""
        self.rows += other.rows
        self.cut += other.cut
        self.empty_rationales += other.empty_rationales
        for name in ("reasons", "regions", "sources", "labels", "words"):
            getattr(self, name).update(getattr(other, name))
        for name in ("instances", "contents", "images"):
            getattr(self, name).extend(getattr(other, name))

    def report(self) -> dict[str, Any]:
        """Return the summary, JSON-able."""
        rejected = sum(self.reasons.values())
        return {
            "rows": self.rows,
            "good": self.rows - rejected,
            "rejected": rejected,
            "reasons": dict(self.reasons.most_common()),
            "images": _distinct(self.images),
            "regions_per_row": {str(k): self.regions[k] for k in sorted(self.regions)},
            "sources": dict(self.sources.most_common()),
            "labels": dict(self.labels.most_common()),
            "words": _quantiles(self.words),
            "cut_by_text_processor": self.cut,
            "empty_rationale": self.empty_rationales,
            "duplicate_index": len(self.instances) - _distinct(self.instances),
            "duplicate_content": len(self.contents) - _distinct(self.contents),
        }


class CorpusChecker:
    """Checks rows of a data set, each distinct image once.

    Args:
        dataset: its text processor should not cut, so that whole lengths are counted.
        images: what is checked of images: nothing, header and boxes, or every pixel.
        word_limit: number of words the critic's text processor keeps.
    """

    def __init__(
        self, dataset: RecordDataset, images: Images = "decode", word_limit: int | None = 70
    ) -> None:
        self.dataset = dataset
        self.images = images
        self.word_limit = word_limit
        self._images: dict[int, tuple[int, int] | str] = {}  # size, or why it is bad

    def check(self, rows: Sequence[int]) -> tuple[CorpusSummary, list[dict[str, Any]]]:
        """Return the summary of some rows, and `{file, line, index, reason}` of the bad ones."""
        summary = CorpusSummary()
        rejects = []
        for index in rows:
            try:
                row = self.dataset.row(index)
                self._check_image(row)
                summary.add(row, self.dataset.record(index), self.word_limit)
            except RecordError as error:
                summary.reject(error.reason)
                source = self.dataset.source(index)
                rejects.append({**source, "index": index, "reason": error.reason})
        return summary, rejects

    def _check_image(self, row: Row) -> None:
        if self.images == "none":
            return
        drawing = row.drawing
        assert drawing is not None
        file = drawing.file
        key = name_hash(json.dumps(file.identity()))
        if key not in self._images:
            limit = self.dataset.config.max_pixels
            try:
                if self.images == "header":
                    self._images[key] = image_size(file, limit)
                else:
                    self._images[key] = decode_image(file, limit).size
            except RecordError as error:
                self._images[key] = error.reason
        found = self._images[key]
        if isinstance(found, str):
            raise RecordError(found)
        check_inside(drawing.regions, found)


def _distinct(hashes: array.array[int]) -> int:
    return len(np.unique(np.frombuffer(hashes, dtype=np.uint64))) if hashes else 0


def _quantiles(counts: Counter[int]) -> dict[str, int]:
    """Return quantiles of a counted number, by percent."""
    if not counts:
        return {}
    values = np.array(sorted(counts))
    below = np.cumsum([counts[v] for v in values.tolist()])
    places = np.searchsorted(below, [max(1, q / 100 * below[-1]) for q in _QUANTILES])
    return {f"p{q}": int(values[i]) for q, i in zip(_QUANTILES, places, strict=True)}
