"""Localized question / answer / rationale records for the critic: training and filtering."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import RecordError
from lavis.common.registry import datasets
from lavis.datasets.config import LckConfig
from lavis.datasets.lck.record import Region, read_label, read_score, read_word_boxes
from lavis.datasets.lck.regions import RegionDataset
from lavis.datasets.lck.text import instance_of, qar_parts
from lavis.datasets.lck.tokens import read_region_ids
from lavis.datasets.rows import Row
from lavis.processors.region import tokens_to_text

if TYPE_CHECKING:
    from lavis.datasets.rows import Images


@datasets.register("unified_vqa_binary")
class LckDataset(RegionDataset):
    """One text a record: `question Answer: answer Rationale: rationale`, regions as `[k]`.

    In evaluation the regions are those of `region`, in that order; the first `max_regions` are
    drawn in colours 0, 1, ... and the text names each by the same number. Ids outside `region`
    vanish from the text. In training a label is required.
    """

    config_class: ClassVar[type[LckConfig]] = LckConfig
    config: LckConfig

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        record = self.store.read(index)
        file = self.image_file(index, record)
        regions = self.find_regions(record, self._choose_ids(record, rng))
        whole, parts = self._text(record, regions)
        text = self.text_processor(whole)
        if not text.strip():
            raise RecordError("empty text: nothing is left after the text processor")
        targets = self._targets(record)
        fields: dict[str, Any] = {"instance": instance_of(record, index), "index": index}
        if "label" in targets:
            fields["label"] = targets["label"]
        drawing = self.draw(file, regions, record)
        key = self._image_key(drawing)
        return Row(index, key, text, fields, parts=(parts,), targets=targets, drawing=drawing)

    def _text(self, record: Mapping[str, Any], regions: list[Region]) -> tuple[str, dict[str, str]]:
        tags = self.tags(regions)
        named = self.config.source(self.split).use_object_tags
        return qar_parts(
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
        targets: dict[str, Any] = {
            "label": label,
            "qa_label": read_score(record, "qa_score"),
            "r_label": read_score(record, "r_score"),
        }
        if self.config.word_boxes and self.is_train:
            targets["word_boxes"] = read_word_boxes(record)
        return {k: v for k, v in targets.items() if v is not None}

    def collate(
        self, rows: Sequence[Row], images: Images | None, image_index: Sequence[int]
    ) -> dict[str, Any]:
        """See `RecordDataset`; the option `word_boxes` adds a mapping for each image."""
        samples = super().collate(rows, images, image_index)
        if self.config.word_boxes and self.is_train:
            merged: list[dict[str, Any]] = [{} for _ in range(max(image_index, default=-1) + 1)]
            for row, image in zip(rows, image_index, strict=True):
                merged[image].update(row.targets.get("word_boxes", {}))
            samples["word_boxes"] = merged
        return samples
