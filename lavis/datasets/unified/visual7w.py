"""Visual7W telling: four answers to a question about an image.

Format as published (`dataset_v7w_telling.json`): `{images: [{filename, split, qa_pairs: [{qa_id,
question, answer, multiple_choices, type}]}]}`, with three wrong choices. As in the released code
the right answer comes last; scores do not depend on the order, and `--shuffle` draws one by seed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator, Mapping
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
class Visual7wConverter(Converter):
    """One record a question of a split; `group` is its question word. No regions.

    Attributes:
        shuffle: seed of the candidates' order; None keeps the right one last.
        image_prefix: what stands before `filename`.
    """

    annotations: Path
    split: str = "test"
    shuffle: int | None = None
    image_prefix: str = "visual7w"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("annotations", type=Path, help="dataset_v7w_telling.json")
        parser.add_argument("--split", choices=["train", "val", "test"], default=cls.split)
        parser.add_argument("--shuffle", type=int, metavar="SEED", help="order of candidates")
        parser.add_argument("--image-prefix", default=cls.image_prefix)

    def items(self) -> Iterator[Item]:
        for item in read_items(self.annotations, "images"):
            image = item.value
            if not isinstance(image, Mapping) or not isinstance(image.get("qa_pairs"), list):
                yield Item(item.place, error=item.error or "missing field: qa_pairs")
            elif image.get("split") == self.split:
                for number, pair in enumerate(image["qa_pairs"], 1):
                    known = pair.get("qa_id") if isinstance(pair, Mapping) else None
                    place = {**item.place, "qa_pair": number, "qa_id": known}
                    yield Item(place, (image, pair))

    def records(self, value: Any) -> Iterable[dict[str, Any]]:
        image, pair = value[0], fields(value[1])
        wrong = texts_in(pair, "multiple_choices")
        order = list(range(len(wrong) + 1))
        if self.shuffle is not None:
            random.Random(f"{self.shuffle}/{pair['qa_id']}").shuffle(order)
        texts = [*wrong, pair["answer"]]
        kind = pair.get("type")
        yield make_record(
            image=join_path(self.image_prefix, name_in(image, "filename")),
            instance_id=name_in(pair, "qa_id"),
            question=words(pair["question"]),
            candidates=[words(texts[place]) for place in order],
            label=order.index(len(texts) - 1),
            group=kind if isinstance(kind, str) else None,
        )
