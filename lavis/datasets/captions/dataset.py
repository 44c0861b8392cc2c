"""Images, or boxes (x1, y1, x2, y2 in pixels) of them, with captions, for the fusion block."""

from __future__ import annotations

import json
import math
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lavis.common.errors import REFUSALS, DataError, RecordError
from lavis.common.registry import datasets
from lavis.common.storage.inputs import Input
from lavis.datasets.base import RecordDataset
from lavis.datasets.captions.config import CaptionDatasetConfig, CaptionedImagesConfig
from lavis.datasets.files.arrow import open_tables
from lavis.datasets.files.images import ImageFile
from lavis.datasets.files.json_values import text_of
from lavis.datasets.files.records import RecordStore
from lavis.datasets.rows import Drawing, Row

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
_SHUFFLE_SEED = 42  # of `shuffle_data`, as released


class CaptionDataset(RecordDataset):
    """Rows of a caption, kept as stored up to the text processor, and an image or a box of it."""

    config_class: ClassVar[type[CaptionDatasetConfig]]
    config: CaptionDatasetConfig

    def __init__(self, config: CaptionDatasetConfig, split: str, *, name: str) -> None:
        super().__init__(config, split, name=name)
        self.has_images = config.with_images
        self._rows = chosen_rows(len(self.store), config)

    def __len__(self) -> int:
        return len(self.store) if self._rows is None else len(self._rows)

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        stored = self._stored(index)
        record = self.store.read(stored)
        text = self.text_processor(self._caption(record))
        if not text.strip():
            raise RecordError("empty text: nothing is left after the text processor")
        fields = {"index": index, **self._fields(record)}
        if not self.has_images:
            return Row(index, f"no image {index}", text, fields)
        drawing = Drawing(self._image_file(record, stored), crop=self._box(record))
        return Row(index, self._image_key(drawing), text, fields, drawing=drawing)

    @abstractmethod
    def _caption(self, record: Mapping[str, Any]) -> str:
        """Return the caption, checked by `text_of`."""

    @abstractmethod
    def _image_file(self, record: Mapping[str, Any], stored: int) -> ImageFile:
        """Return the image of a record; `stored` is its number in the store."""

    def _box(self, record: Mapping[str, Any]) -> Box | None:
        """Return the box that is shown, None for the whole image."""
        return None

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that identify the row in result files."""
        return {}

    def drawn_image(self, row: Row) -> Image.Image:
        """Return the RGB image, cut to the row's box.

        Raises:
            RecordError: the image cannot be used, or the box lies outside it.
        """
        assert row.drawing is not None, "this data set was opened without images"
        image = self._decoded(row.drawing.file)
        return image if row.drawing.crop is None else cut_out(image, row.drawing.crop)

    def record(self, index: int) -> dict[str, Any]:
        """Return the record as stored."""
        return super().record(self._stored(index))

    def source(self, index: int) -> dict[str, Any]:
        """Return the file of a row, and its line or row there."""
        return super().source(self._stored(index))

    def inputs(self, index: int) -> list[Input]:
        """Return the files, or parts of files, that a row is read from, its image apart."""
        return super().inputs(self._stored(index))

    def _stored(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])


def chosen_rows(count: int, config: CaptionDatasetConfig) -> np.ndarray | None:
    """Return the numbers of the rows that `max_elements` leaves, None for all in order."""
    if config.max_elements is None or config.max_elements >= count:
        return None
    if config.shuffle_data:
        return np.random.default_rng(_SHUFFLE_SEED).permutation(count)[: config.max_elements]
    return np.arange(config.max_elements)


def read_box(record: Mapping[str, Any], key: str | Sequence[str], form: str) -> Box | None:
    """Return a record's box, or None where it has none.

    Args:
        key: a field of four numbers (or of text that lists them), or four fields.
        form: `xywh` or `xyxy`.

    Raises:
        RecordError: not four numbers, or a box without area.
    """
    value = record.get(key) if isinstance(key, str) else [record.get(name) for name in key]
    if value is None or value == "" or _is_blank(value):
        return None
    name = key if isinstance(key, str) else "/".join(key)
    numbers = _numbers(value)
    if numbers is None:
        raise RecordError(f"malformed box: {name} is {str(value)[:80]}, expected four numbers")
    x, y, third, fourth = numbers
    x2, y2 = (x + third, y + fourth) if form == "xywh" else (third, fourth)
    if x2 <= x or y2 <= y:
        raise RecordError(f"empty box: {x2 - x:g} x {y2 - y:g} pixels")
    return x, y, x2, y2


def _is_blank(value: Any) -> bool:
    return isinstance(value, list) and all(v is None or v == "" for v in value)


def _numbers(value: Any) -> list[float] | None:
    try:
        value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or len(value) != 4:
            return None
        numbers = [float(v) for v in value if not isinstance(v, bool)]
    except REFUSALS:
        return None
    return numbers if len(numbers) == 4 and all(map(math.isfinite, numbers)) else None


def cut_out(image: Image.Image, box: Box) -> Image.Image:
    """Return the pixels that a box touches, inside the image; raises `RecordError` for none."""
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    if right <= left or bottom <= top:
        shown = ", ".join(f"{v:g}" for v in box)
        raise RecordError(
            f"box outside the image: {shown} in {image.width} x {image.height} pixels"
        )
    return image.crop((left, top, right, bottom))


@datasets.register("captioned_images")
class CaptionedImages(CaptionDataset):
    """JSON lines, Parquet, CSV, Arrow, tar shards or img2dataset folders of captioned images."""

    config_class: ClassVar[type[CaptionedImagesConfig]] = CaptionedImagesConfig
    config: CaptionedImagesConfig

    def _open_store(self) -> RecordStore:
        config = self.config
        paths = config.record_paths(self.split)
        if not paths:
            raise DataError(
                f"datasets.{self.name}.build_info.annotations.{self.split}.storage: empty; name "
                "files of captioned images"
            )
        return open_tables(paths, cache_dir=config.cache_dir, image_key=config.image_key)

    def _caption(self, record: Mapping[str, Any]) -> str:
        return text_of(record, self.config.text_key)

    def _image_file(self, record: Mapping[str, Any], stored: int) -> ImageFile:
        file = self.store.image(stored)
        if file is not None:
            return file
        name = record.get(self.config.image_key)
        if name is None:
            raise RecordError(f"missing image: no {self.config.image_key}, and none beside it")
        return self.images.find(name)

    def _box(self, record: Mapping[str, Any]) -> Box | None:
        return read_box(record, self.config.box_key, self.config.box_format)
