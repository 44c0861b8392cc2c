"""A corpus checked without a model: its statistics and bad records, in one pass.

Memory grows by 24 bytes a row (three hashes, for duplicates) and about 200 bytes an image.
"""

from __future__ import annotations

import array
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from lavis.common.command import check_outputs
from lavis.common.errors import ConfigError, RecordError
from lavis.common.registry import datasets
from lavis.common.storage.atomic import AtomicFile, write_json
from lavis.datasets.base import RecordDataset
from lavis.datasets.files.formats import expand_paths
from lavis.datasets.files.images import ImageRoot, decode_image, image_size
from lavis.datasets.lck.record import check_inside, name_hash
from lavis.datasets.lck.tokens import has_empty_rationale
from lavis.datasets.rows import Row

Images = Literal["none", "header", "decode"]
_QUANTILES = (0, 50, 90, 99, 100)
_KINDS = {"lck": "unified_vqa_binary", "laion": "laion_sample_extracted"}
_SHOWN = 5  # bad records that are printed
_CHUNK = 1000  # rows that a process takes at a time


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
        for name in ("rows", "cut", "empty_rationales"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
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
        size = self._images[key]
        if isinstance(size, str):
            raise RecordError(size)
        check_inside(drawing.regions, size)


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


def validate_corpus(
    files: Sequence[str],
    *,
    check_images: Images | None = None,
    rejects: str | None = None,
    summary: str | None = None,
    max_words: int = 70,
    workers: int = 0,
    **options: Any,
) -> int:
    """Check record files, print their statistics and the first bad records.

    Args:
        files: as `open_records` takes them.
        check_images: see `CorpusChecker`; None: `decode` where there are images, else `none`.
        rejects: file for all bad records, JSON lines of `{file, line, index, reason}`.
        summary: JSON file for the statistics.
        max_words: number of words the critic's text processor keeps.
        workers: processes beside this one.
        options: of `open_corpus`.

    Returns:
        The exit status: 1 where a record is bad.

    Example:
        >>> validate_corpus(["train.jsonl"], image_root="images", rejects="rejects.jsonl")
    """
    dataset = open_corpus(files, **options)
    root, mapping = options.get("image_root"), options.get("region_mapping")
    if check_images is None:
        check_images = "decode" if root or _holds_images(dataset) else "none"
    if check_images == "none":
        dataset.images = ImageRoot(root or ".", must_exist=False)
    check_outputs([rejects, summary], [*expand_paths(files), *([mapping] if mapping else [])])
    total = CorpusSummary()
    first: list[dict[str, Any]] = []  # of the bad records
    bar = tqdm(total=len(dataset), unit="row", desc="checking", mininterval=1, disable=None)
    with AtomicFile(rejects) if rejects else io.BytesIO() as out, bar:
        for part, bad in _checked(workers, dataset, check_images, max_words):
            total.merge(part)
            first += bad[: _SHOWN - len(first)]
            for reject in bad if rejects else []:
                out.write(json.dumps(reject, ensure_ascii=False).encode() + b"\n")
            bar.update(part.rows)
    report = {**total.report(), "images_checked": check_images}
    _print_report(report)
    if summary:
        write_json(summary, report)
    for reject in first:
        place = f"line {reject['line']}" if "line" in reject else f"row {reject.get('row')}"
        print(f"{reject['file']}, {place}: {reject['reason']}")
    if rejects:
        print(f"rejected records are listed in {rejects}")
    elif report["rejected"] > len(first):
        print(f"... and {report['rejected'] - len(first)} more; --rejects FILE lists them all")
    return 1 if report["rejected"] else 0


def open_corpus(
    files: Sequence[str],
    *,
    kind: Literal["lck", "laion"] = "lck",
    training: bool = False,
    image_root: str = "",
    region_mapping: str | None = None,
    max_pixels: int | None = None,
    follow_symlinks: bool = False,
    cache_dir: str | None = None,
) -> RecordDataset:
    """Return the data set of record files, with a text processor that cuts nothing.

    Args:
        training: require the labels that critic training needs.

    Raises:
        ConfigError: a file or folder is missing, or an option is out of range.
        DataError: a file cannot be read.
    """
    name, split = _KINDS[kind], "train" if training else "test"
    node: dict[str, Any] = {
        "build_info": {
            "annotations": {split: {"storage": list(files), "region_mapping": region_mapping}},
            "images": {"storage": image_root},
        },
        "follow_symlinks": follow_symlinks,
        "cache_dir": cache_dir,
    }
    if max_pixels:
        node["max_pixels"] = max_pixels
    try:
        config = TypeAdapter(datasets.config_class(name)).validate_python(node)
    except ValidationError as error:
        lines = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        raise ConfigError("; ".join(lines)) from None
    return datasets.get(name)(config, split, name=name)


def _holds_images(dataset: RecordDataset) -> bool:
    """Return whether images are stored with the records, as in tar shards and folders."""
    try:
        return dataset.store.image(0) is not None
    except RecordError:
        return True


class _Worker:
    """The checker of one process, made once, so that chunks carry row numbers only."""

    checker: ClassVar[CorpusChecker]

    @classmethod
    def start(cls, *setup: Any) -> None:
        cls.checker = CorpusChecker(*setup)

    @classmethod
    def check(cls, rows: range) -> tuple[CorpusSummary, list[dict[str, Any]]]:
        return cls.checker.check(rows)


def _checked(
    workers: int, dataset: RecordDataset, *setup: Any
) -> Iterator[tuple[CorpusSummary, list[dict[str, Any]]]]:
    """Yield summary and rejects of each chunk, in row order."""
    count = len(dataset)
    chunks = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
    if workers < 1:
        yield from map(CorpusChecker(dataset, *setup).check, chunks)
        return
    setup = (dataset, *setup)
    with ProcessPoolExecutor(workers, initializer=_Worker.start, initargs=setup) as pool:
        yield from pool.map(_Worker.check, chunks)


def _print_report(report: Mapping[str, Any]) -> None:
    for key, value in report.items():
        if not isinstance(value, dict):
            print(f"{key:24s} {value}")
            continue
        print(f"{key}:")
        for name, count in list(value.items())[:30]:
            print(f"  {name:40s} {count}")
        if len(value) > 30:
            print(f"  ... and {len(value) - 30} more")
