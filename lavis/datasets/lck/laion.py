"""Whole-image captions in img2dataset folders or tar shards, scored by the critic."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from lavis.common.errors import RecordError
from lavis.common.registry import datasets
from lavis.datasets.base import RecordDataset
from lavis.datasets.config import LaionConfig
from lavis.datasets.files.json_values import finite, text_of
from lavis.datasets.rows import Drawing, Row

_QUESTION = "What is in this image? Answer: {caption}"


@datasets.register("laion_sample_extracted")
class LaionDataset(RecordDataset):
    """Images with the record `<key>.json` beside them, sorted by path.

    Reads `caption`, `similarity` and `key`. No regions are drawn. Records in JSONL or Parquet files
    work too where they carry an `image` under the image root.
    """

    config_class: ClassVar[type[LaionConfig]] = LaionConfig
    config: LaionConfig

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        record = self.store.read(index)
        file = self.store.image(index)
        if file is None:
            if "image" not in record:
                raise RecordError("missing image: the record has none beside it")
            file = self.images.find(record["image"])
        caption = text_of(record, "caption")
        fields: dict[str, Any] = {
            "index": index,
            "instance": str(record.get("key", index)),
            "similarity": finite(record.get("similarity")),
            "caption": caption,
        }
        text = self.text_processor(_QUESTION.format(caption=caption))
        drawing = Drawing(file)
        parts = ({"answer": caption},)
        return Row(index, self._image_key(drawing), text, fields, parts=parts, drawing=drawing)
