"""SNLI-VE as a choice of three: what an image says of a sentence.

Format as published (`snli_ve_{dev,test}.jsonl`): a line holds `Flickr30K_ID`, `sentence2` (the
hypothesis), `gold_label`, `pairID`. Text and order of the labels are those of the released code:
"Does the image describe {hypothesis}? Answer: {label}".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import RecordError
from lavis.datasets.unified.convert import (
    Converter,
    fields,
    join_path,
    make_record,
    name_in,
    words,
)
from lavis.datasets.unified.files import Item, read_items

LABELS = ("contradiction", "neutral", "entailment")


@dataclass(frozen=True, kw_only=True)
class SnliVeConverter(Converter):
    """One record a pair; pairs without an agreed label (`-`) are set aside. No regions.

    Attributes:
        image_prefix: what stands before `<Flickr30K id>.jpg`.
    """

    annotations: Path
    image_prefix: str = "flickr30k-images"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("annotations", type=Path, help="snli_ve_test.jsonl")
        parser.add_argument("--image-prefix", default=cls.image_prefix)

    def items(self) -> Iterator[Item]:
        return read_items(self.annotations)

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        entry = fields(value)
        label = entry["gold_label"]
        if label not in LABELS:
            raise RecordError(f"no agreed label: {label!r:.60}")
        hypothesis = " ".join(words(entry["sentence2"]))
        yield make_record(
            image=join_path(self.image_prefix, f"{name_in(entry, 'Flickr30K_ID')}.jpg"),
            instance_id=name_in(entry, "pairID"),
            question=words(f"Does the image describe {hypothesis}?"),
            candidates=[[name] for name in LABELS],
            label=LABELS.index(label),
        )
