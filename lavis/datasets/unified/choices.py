"""A-OKVQA, SNLI-VE and Visual7W: choices about a whole image, without regions.

Formats as published:

- A-OKVQA (`aokvqa_v1p0_val.json`): a list of `{split, image_id, question_id, question, choices,
  correct_choice_idx}`. The test file has no answers: its records have no `label`.
- SNLI-VE (`snli_ve_{dev,test}.jsonl`): a line holds `Flickr30K_ID`, `sentence2` (the hypothesis),
  `gold_label`, `pairID`. Label texts and their order are those of the released code.
- Visual7W telling (`dataset_v7w_telling.json`): `{images: [{filename, split, qa_pairs: [{qa_id,
  question, answer, multiple_choices, type}]}]}`, with three wrong choices. As in the released code
  the right answer comes last; scores do not depend on the order, and `--shuffle` draws one by seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lavis.common.errors import RecordError
from lavis.datasets.files.items import FileItem, read_items
from lavis.datasets.unified.convert import Converter, flag
from lavis.datasets.unified.record import fields, join_path, make_record, name_in, texts_in, words

LABELS = ("contradiction", "neutral", "entailment")  # of SNLI-VE


@dataclass(frozen=True, kw_only=True)
class AokvqaConverter(Converter):
    """One record per question; images are COCO's `<split>2017/<image id, 12 digits>.jpg`."""

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


@dataclass(frozen=True, kw_only=True)
class SnliVeConverter(Converter):
    """One record per pair; pairs without an agreed label (`-`) are rejected."""

    image_prefix: str = flag("flickr30k-images")

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


@dataclass(frozen=True, kw_only=True)
class Visual7wConverter(Converter):
    """One record per question of a split; `group` is its question word.

    Attributes:
        shuffle: seed for the order of the candidates; None keeps the right one last.
    """

    image_prefix: str = flag("visual7w")
    split: str = flag("test", choices=["train", "val", "test"])
    shuffle: int | None = flag(None, type=int, metavar="SEED", help="order of candidates")

    def items(self) -> Iterator[FileItem]:
        for item in read_items(self.annotations, "images"):
            image = item.value
            if not isinstance(image, Mapping) or not isinstance(image.get("qa_pairs"), list):
                yield FileItem(item.place, error=item.error or "missing field: qa_pairs")
            elif image.get("split") == self.split:
                for number, pair in enumerate(image["qa_pairs"], 1):
                    known = pair.get("qa_id") if isinstance(pair, Mapping) else None
                    place = {**item.place, "qa_pair": number, "qa_id": known}
                    yield FileItem(place, (image, pair))

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
