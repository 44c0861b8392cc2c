"""Localized question / answer / rationale records for the critic: training and filtering."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import RecordError
from lavis.common.registry import datasets
from lavis.datasets.base import Row
from lavis.datasets.config import LckConfig
from lavis.datasets.lck.record import (
    Region,
    Tokens,
    read_label,
    read_region_ids,
    read_score,
    read_tokens,
    read_word_boxes,
)
from lavis.datasets.lck.regions import RegionDataset
from lavis.processors.region import tokens_to_text

if TYPE_CHECKING:
    from torch import Tensor


@datasets.register("unified_vqa_binary")
class LckDataset(RegionDataset):
    """One text a record: `question Answer: answer Rationale: rationale`, regions as `[k]`.

    In evaluation the regions are those of `region`, in that order; the first `max_regions` are
    drawn in colours 0, 1, ... and the text names each by the same number. Ids outside `region`
    vanish from the text. In training a label is required.
    """

    config_class: ClassVar[type[LckConfig]] = LckConfig
    config: LckConfig

    def __init__(self, config: LckConfig, split: str, *, name: str = "unified_vqa_binary") -> None:
        super().__init__(config, split, name=name)

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        record = self.store.read(index)
        file = self.image_file(index, record)
        regions = self.find_regions(record, self._choose_ids(record, rng))
        text = self.text_processor(self._text(record, regions))
        if not text.strip():
            raise RecordError("empty text: nothing is left after the text processor")
        targets = self._targets(record)
        fields: dict[str, Any] = {"instance": instance_of(record, index), "index": index}
        if "label" in targets:
            fields["label"] = targets["label"]
        drawing = self.draw(file, regions, record)
        key = self._image_key(drawing)
        return Row(index, key, text, fields, targets=targets, drawing=drawing)

    def _text(self, record: Mapping[str, Any], regions: list[Region]) -> str:
        tags = self.tags(regions)
        named = self.config.source(self.split).use_object_tags
        return qar_text(
            record,
            include_rationale=self.config.include_rationale,
            write=lambda tokens: tokens_to_text(tokens, tags, use_object_tags=named),
        )

    def _choose_ids(self, record: Mapping[str, Any], rng: random.Random | None) -> list[int]:
        ids = read_region_ids(record, "region")
        if rng is None or not self.is_train or rng.random() < self.config.region_prob:
            return ids
        every = read_region_ids(record, "region_all") or ids
        return rng.sample(every, len(every))

    def _targets(self, record: Mapping[str, Any]) -> dict[str, Any]:
        label = read_label(record, polarity=self.config.label_polarity)
        if label is None and self.is_train:
            raise RecordError("missing field: label or reject_label")
        found: dict[str, Any] = {
            "label": label,
            "qa_label": read_score(record, "qa_score"),
            "r_label": read_score(record, "r_score"),
        }
        if self.config.word_boxes and self.is_train:
            found["word_boxes"] = read_word_boxes(record)
        return {k: v for k, v in found.items() if v is not None}

    def collate(
        self, rows: Sequence[Row], images: Tensor | None, image_index: Sequence[int]
    ) -> dict[str, Any]:
        """See `RecordDataset`; the option `word_boxes` adds a mapping for each image."""
        samples = super().collate(rows, images, image_index)
        if self.config.word_boxes and self.is_train:
            merged: list[dict[str, Any]] = [{} for _ in range(max(image_index, default=-1) + 1)]
            for row, image in zip(rows, image_index, strict=True):
                merged[image].update(row.targets.get("word_boxes", {}))
            samples["word_boxes"] = merged
        return samples


def choose_regions(
    record: Mapping[str, Any],
    region_prob: float,
    rng: random.Random | None,
    *,
    shuffle: bool = True,
) -> list[int]:
    """Return the region ids a student sees: those of `region` in order, or, in training, a choice.

    Args:
        region_prob: in training, probability of `region`; else of `region_all`.
        rng: None outside training.
        shuffle: in training, in any order.
    """
    ids = read_region_ids(record, "region")
    if rng is None:
        return ids
    if rng.random() >= region_prob:
        ids = read_region_ids(record, "region_all") or ids
    return rng.sample(ids, len(ids)) if shuffle else ids


def instance_of(record: Mapping[str, Any], index: int) -> str:
    """Return the record's own `index` (else `instance_id`, else the row number) as text."""
    for key in ("index", "instance_id"):
        value = record.get(key)
        if value is not None and not isinstance(value, (dict, list)):
            return str(value)
    return str(index)


def qar_text(
    record: Mapping[str, Any], *, include_rationale: bool, write: Callable[[Tokens], str]
) -> str:
    """Return a record's whole text, its regions named, before the text processor.

    Records with `question` give `question Answer: answer`, and `Rationale: rationale` where the
    record has the key. A rationale that says nothing leaves the word `Rationale:` at the end, as in
    the released code, which scores such records. Others give `full_text_input`, or `text_input` and
    `text_output`.

    Args:
        record: the record.
        include_rationale: take the rationale where there is one.
        write: token list -> text.

    Raises:
        RecordError: a part is missing, is no token list, or, but for the rationale, says nothing.
    """

    def part(key: str) -> str:
        text = write(read_tokens(record, key))
        if not text.strip():
            raise RecordError(f"empty text: {key}")
        return text

    if "question" in record or not ("full_text_input" in record or "text_input" in record):
        text = f"{part('question')} Answer: {part('answer')}"
        if include_rationale and record.get("rationale") is not None:
            rationale = write(read_tokens(record, "rationale"))
            text += f" Rationale: {rationale}" if rationale.strip() else " Rationale:"
        return text
    if "full_text_input" in record:
        return part("full_text_input")
    return f"{part('text_input')} {part('text_output')}"


def has_empty_rationale(record: Mapping[str, Any]) -> bool:
    """Say whether a record has a rationale without a word or a region of its `region`."""
    tokens = record.get("rationale")
    if "question" not in record or not isinstance(tokens, list):
        return False
    if any(not isinstance(token, list) and str(token).strip() for token in tokens):
        return False
    try:
        known = set(read_region_ids(record, "region"))
        named = [
            i
            for token in read_tokens(record, "rationale")
            if isinstance(token, list)
            for i in token
        ]
    except RecordError:
        return False
    return known.isdisjoint(named)
