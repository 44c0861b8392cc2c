"""Sherlock's comparison task: candidate inferences of a region, each rated by two people.

Format as published: the annotation file (`sherlock_val_with_split_idxs_v1_1.json`) is a list of
`{instance_id, inputs: {image: {url, width, height}, bboxes: [{left, top, width, height}], clue},
targets: {inference}}`; the answer key (`val_comparison/val_comparison_answer_key.json`) names an
instance by `Input_iid` and gives its candidates (`prediction`) with the ratings of two people
(`annot1`, `annot2`). The key's nesting is not settled by its documentation, so three forms are
read: a list of candidates per instance (under any name), parallel lists, or one row a candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.items import FileItem, read_items
from lavis.datasets.unified.convert import Converter, flag
from lavis.datasets.unified.record import fields, join_path, list_in, make_record, scaled, words

QUESTION = "What can be inferred from {regions} ?"
_IMAGE = re.compile(r"(?:^|/)(vcr1images/.+|VG_100K(?:_2)?/[^/?]+)$")
_KEY = "Input_iid"


def image_of(url: str) -> str:
    """Return `vcr1images/...` or `VG_100K/...`; raises `RecordError` for any other collection."""
    match = _IMAGE.search(url)
    if match is None:
        raise RecordError(f"unknown image: {url!r:.80} is neither of VCR nor of Visual Genome")
    return match.group(1)


def region_entries(bboxes: Iterable[Mapping[str, float]]) -> dict[str, Any]:
    """Return a region for each box; Sherlock gives left, top, width and height in pixels."""
    entries = {}
    for number, box in enumerate(bboxes):
        left, top = box["left"], box["top"]
        corners = [left, top, left + box["width"], top + box["height"]]
        entries[str(number)] = {"boxes": [corners], "obj_guess": ""}
    return entries


@dataclass(frozen=True, kw_only=True)
class SherlockConverter(Converter):
    """One record per instance of the answer key; inferences have no question, so ours is asked.

    Attributes:
        answer_key: file with candidates and ratings.
        question: text before the candidates; `{regions}` becomes the numbers of all boxes.
        image_root: folder of `image_prefix`, whose files set the size that boxes are scaled to;
            without it boxes stay in pixels of the annotation's own `width` and `height`, which the
            record names for its reader to scale.
    """

    answer_key: Path = flag(type=Path, help="val_comparison_answer_key.json")
    question: str = flag(QUESTION, help="default: %(default)s")
    image_root: Path | None = flag(
        None,
        variable="UNIFIED_IMAGE_DIR",
        type=Path,
        help="for boxes in their files' sizes (default: UNIFIED_IMAGE_DIR)",
    )
    _instances: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def items(self) -> Iterator[FileItem]:
        grouped: dict[str, list[FileItem]] = {}
        for item in read_items(self.answer_key):
            if not isinstance(item.value, Mapping) or _KEY not in item.value:
                yield FileItem(item.place, error=item.error or f"missing field: {_KEY}")
                continue
            grouped.setdefault(str(item.value[_KEY]), []).append(item)
        self._read_instances(set(grouped))
        for items in grouped.values():
            yield FileItem(items[0].place, [item.value for item in items])

    def _read_instances(self, wanted: set[str]) -> None:
        self._instances.clear()
        for item in read_items(self.annotations):
            if isinstance(item.value, Mapping) and str(item.value.get("instance_id")) in wanted:
                self._instances[str(item.value["instance_id"])] = item.value
        if wanted and not self._instances:
            raise DataError(
                f"{self.annotations}: has none of the {len(wanted)} instances of {self.answer_key}"
            )

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        name = str(value[0][_KEY])
        if name not in self._instances:
            raise RecordError(f"unknown instance: {name} is not in {self.annotations.name}")
        inputs = fields(fields(self._instances[name])["inputs"])
        candidates = [candidate for entry in value for candidate in _candidates(entry)]
        references = region_entries(list_in(inputs, "bboxes"))
        if not references:
            raise RecordError("bad box: the instance has none")
        question: list[Any] = []
        for word in self.question.split():
            question.append([*map(int, references)] if word == "{regions}" else word)
        source = fields(inputs["image"])
        image = image_of(source["url"])
        references, size = scaled(
            references,
            (int(source["width"]), int(source["height"])),
            self.image_root and self.image_root / self.image_prefix / image,
        )
        yield make_record(
            image=join_path(self.image_prefix, image),
            instance_id=name,
            question=question,
            candidates=[words(text) for text, _ in candidates],
            references=references,
            size=size,
            scores=[ratings for _, ratings in candidates],
        )


def _candidates(entry: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """Yield each candidate's text and both people's ratings, in any of the three forms."""
    if "prediction" in entry:
        columns = [entry[name] for name in ("prediction", "annot1", "annot2")]
        if isinstance(columns[0], str):
            columns = [[column] for column in columns]
        for text, first, second in zip(*columns, strict=True):
            yield text, [float(first), float(second)]
        return
    lists = [part for part in entry.values() if isinstance(part, list) and _holds_candidates(part)]
    if len(lists) != 1:
        raise RecordError("missing field: prediction")
    for part in lists[0]:
        yield from _candidates(part)


def _holds_candidates(part: list[Any]) -> bool:
    return bool(part) and all(isinstance(one, Mapping) and "prediction" in one for one in part)
