"""VCR: Q -> A and QA -> R, from `val.jsonl` and the images' metadata.

Format as published in the VCR 1.0 annotations: a line holds `img_fn`, `metadata_fn`, `question`,
`answer_choices`, `rationale_choices` (words, and lists of object numbers from 0), `answer_label`,
`rationale_label`, `annot_id`; metadata hold `boxes` (x1, y1, x2, y2, score), `names`, `width`,
`height`. Test files have no labels: they give records without `label` for Q -> A, and none for
QA -> R, whose question holds the right answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import REFUSALS, RecordError, printable, record_errors
from lavis.datasets.lck.tokens import check_tokens, mentioned
from lavis.datasets.unified.convert import Converter, flag
from lavis.datasets.unified.record import fields, join_path, list_in, make_record, name_in, scaled


@dataclass(frozen=True, kw_only=True)
class ImageObjects:
    """The objects of one image, from its metadata file.

    Attributes:
        size: width and height in pixels. boxes: x1, y1, x2, y2 and detector score of each.
    """

    size: tuple[int, int]
    boxes: list[list[float]]
    names: list[str]

    @classmethod
    def read(cls, path: Path) -> ImageObjects:
        """Read `{boxes, names, width, height}`; raises `RecordError` where one is missing."""
        try:
            content = path.read_bytes()
        except (OSError, ValueError):
            raise RecordError(f"missing file: {printable(path.name)}") from None
        with record_errors(f"malformed file: {printable(path.name)}"):
            node = json.loads(content.decode("utf-8"))
        try:
            objects = cls(
                size=(int(node["width"]), int(node["height"])),
                boxes=list(node["boxes"]),
                names=list(node["names"]),
            )
        except REFUSALS as error:
            raise RecordError(f"malformed file: {path.name}: {error!r:.120}") from None
        if len(objects.boxes) != len(objects.names):
            raise RecordError(f"malformed file: {path.name}: boxes and names differ in number")
        return objects

    def references(self, ids: Iterable[int]) -> dict[str, Any]:
        """Return entries by id, in the order of `ids`; raises `RecordError` for an unknown one."""
        entries = {}
        for number in ids:
            if not 0 <= number < len(self.boxes):
                raise RecordError(f"unknown region id: {number} of {len(self.boxes)}")
            entries[str(number)] = {"boxes": [self.boxes[number]], "obj_guess": self.names[number]}
        return entries


@dataclass(frozen=True, kw_only=True)
class VcrConverter(Converter):
    """One record per line.

    Regions are the objects mentioned in question or candidates, in order of first mention: all
    candidates share one drawn image. The distilled models' records are not public, so this choice
    is ours; `regions="all"` draws every object.

    Attributes:
        task: `qa` asks for the answer, `qar` for the rationale after question and right answer.
        image_dir: folder of `metadata_fn` (`vcr1images`).
    """

    image_prefix: str = flag("vcr1images")
    image_dir: Path = flag(type=Path, required=True, help="vcr1images, with the metadata")
    task: str = flag("qa", choices=["qa", "qar"])
    regions: str = flag("mentioned", choices=["mentioned", "all"])

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        value = fields(value)
        question = check_tokens(value["question"], "question")
        kind = "answer" if self.task == "qa" else "rationale"
        candidates = [
            check_tokens(tokens, f"{kind}_choices") for tokens in list_in(value, f"{kind}_choices")
        ]
        if self.task == "qar":
            answers, place = list_in(value, "answer_choices"), value["answer_label"]
            if isinstance(place, bool) or not isinstance(place, int):
                raise RecordError(f"wrong type: answer_label {place!r:.60} is not a whole number")
            if not 0 <= place < len(answers):
                raise RecordError(f"wrong label: {place} of {len(answers)} answers")
            right = answers[place]
            question = [*question, "Answer:", *check_tokens(right, "answer_choices")]
        objects = ImageObjects.read(self.image_dir / name_in(value, "metadata_fn"))
        ids: Iterable[int] = range(len(objects.boxes))
        if self.regions == "mentioned":
            ids = mentioned([*question, *(token for tokens in candidates for token in tokens)])
        name = name_in(value, "img_fn")
        references, size = scaled(objects.references(ids), objects.size, self.image_dir / name)
        yield make_record(
            image=join_path(self.image_prefix, name),
            instance_id=name_in(value, "annot_id"),
            question=question,
            candidates=candidates,
            references=references,
            size=size,
            answer_prefix="Answer:" if self.task == "qa" else "Rationale:",
            label=value.get(f"{kind}_label"),
        )
