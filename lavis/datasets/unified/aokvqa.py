"""A-OKVQA, multiple choice.

Format as published (`aokvqa_v1p0_val.json`): a list of `{split, image_id, question_id, question,
choices, correct_choice_idx}`. The test file has no right choices: its records have no `label`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.datasets.unified.convert import (
    Converter,
    fields,
    join_path,
    make_record,
    name_in,
    texts_in,
    words,
)
from lavis.datasets.unified.files import Item, read_items


@dataclass(frozen=True, kw_only=True)
class AokvqaConverter(Converter):
    """One record a question; no regions.

    Attributes:
        image_prefix: what stands before `<split>2017/<image id, 12 digits>.jpg`.
    """

    annotations: Path
    image_prefix: str = ""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("annotations", type=Path, help="aokvqa_v1p0_val.json")
        parser.add_argument("--image-prefix", default=cls.image_prefix, help="e.g. coco")

    def items(self) -> Iterator[Item]:
        return read_items(self.annotations)

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        entry = fields(value)
        image = f"{name_in(entry, 'split')}2017/{int(entry['image_id']):012d}.jpg"
        yield make_record(
            image=join_path(self.image_prefix, image),
            instance_id=name_in(entry, "question_id"),
            question=words(entry["question"]),
            candidates=[words(choice) for choice in texts_in(entry, "choices")],
            label=entry.get("correct_choice_idx"),
        )
