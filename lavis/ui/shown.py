"""Records as a page shows them: the image with its regions drawn, and the text in pieces.

Regions are read, coloured and numbered by the data set itself, so people see the critic's input:
number and colour of a region are its place in `region`. Nothing here is HTML.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lavis.common.errors import ConfigError, RecordError, record_errors
from lavis.datasets.config import LckConfig
from lavis.datasets.lck.dataset import LckDataset
from lavis.datasets.lck.marks import RegionMark, region_marks, row_marks
from lavis.datasets.lck.record import Region
from lavis.datasets.lck.text import instance_of
from lavis.datasets.lck.tokens import Tokens, has_empty_rationale, read_region_ids, read_tokens
from lavis.datasets.rows import Row
from lavis.processors.region import DrawnRegion

SPLIT = "test"  # evaluation order: the regions of `region` as they are written
_PNG_PIXELS = 200_000  # drawings up to this size keep every pixel; photographs become JPEG
_JPEG_QUALITY = 88
_PARTS = (("question", "Question"), ("answer", "Answer"), ("rationale", "Rationale"))
_WHOLE = (("full_text_input", "Text"), ("text_input", "Input"), ("text_output", "Output"))


@dataclass(frozen=True, slots=True)
class ShownPart:
    """A named part of the text: words as str, regions as their number."""

    title: str
    pieces: tuple[str | int, ...]

    @property
    def length(self) -> int:
        """Characters of the text as shown."""
        return sum(len(str(piece)) + 1 for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """A row as a page shows it.

    Attributes:
        regions: those that are drawn.
        image: data URI of the drawn image, or None; `problem` says why.
        size: width and height in pixels of the image in its file.
        details: short facts as (name, value).
    """

    index: int
    instance: str
    parts: tuple[ShownPart, ...]
    regions: tuple[RegionMark, ...]
    image: str | None
    size: tuple[int, int]
    problem: str
    details: tuple[tuple[str, str], ...]


def open_corpus(
    files: Sequence[str],
    image_root: str,
    *,
    region_mapping: str | None = None,
    follow_symlinks: bool = False,
    cache_dir: str | None = None,
) -> LckDataset:
    """Return the data set of record files, all regions drawn, each in a colour of its own.

    Example:
        >>> dataset = open_corpus(["corpus.jsonl"], "images")
        >>> RecordViewer(dataset).show(0).parts[0].title
        'Question'

    Raises:
        ConfigError: a file or folder that is not there.
        DataError: files that hold no records.
    """
    if not image_root:
        raise ConfigError("--image-root: missing; name the folder that `image` is relative to")
    node = {
        "build_info": {
            "annotations": {SPLIT: {"storage": list(files), "region_mapping": region_mapping}},
            "images": {"storage": image_root},
        },
        "max_regions": None,
        "palette": "distinct",
        "line_width": "auto",
        "follow_symlinks": follow_symlinks,
        "cache_dir": cache_dir,
    }
    try:
        config = TypeAdapter(LckConfig).validate_python(node)
    except ValidationError as error:
        lines = [problem["msg"].removeprefix("Value error, ") for problem in error.errors()]
        raise ConfigError("; ".join(lines)) from None
    return LckDataset(config, SPLIT, name="unified_vqa_binary")


class RecordViewer:
    """Shows rows of a data set; may be called from several threads.

    Args:
        max_side: longest side of returned images, in pixels.

    Attributes:
        lock: held while the data set is read.
    """

    def __init__(self, dataset: LckDataset, *, max_side: int = 900) -> None:
        self.dataset = dataset
        self.max_side = max_side
        self.lock = threading.RLock()  # readers and the decoded image are shared

    def show(self, index: int, *, max_side: int | None = None) -> ShownRecord:
        """Return a row as a page shows it; `problem` names a broken image.

        Args:
            max_side: in place of the viewer's.

        Raises:
            RecordError: the record itself cannot be read.
        """
        with self.lock, record_errors("malformed record"):
            record = self.dataset.record(index)
            regions = self.dataset.find_regions(record, read_region_ids(record, "region"))
            parts = _parts(self.dataset, record, regions)
            image, size, marks, problem = self._image(
                index, record, regions, max_side or self.max_side
            )
        return ShownRecord(
            index=index,
            instance=instance_of(record, index),
            parts=parts,
            regions=marks,
            image=image,
            size=size,
            problem=problem,
            details=_details(record),
        )

    def _image(
        self, index: int, record: Mapping[str, Any], regions: list[Region], max_side: int
    ) -> tuple[str | None, tuple[int, int], tuple[RegionMark, ...], str]:
        """Return the image as a data URI, its size, its marks, and why there is no image."""
        size = 1, 1
        try:
            drawing = self.dataset.draw(self.dataset.image_file(index, record), regions, record)
            row = Row(index, "", "", {}, drawing=drawing)
            image = self.dataset.drawn_image(row)
        except RecordError as error:
            drawn = [DrawnRegion(place, region.box) for place, region in enumerate(regions)]
            names = [region.object_name for region in regions]
            marks = region_marks(drawn, size, palette=self.dataset.palette, names=names)
            return None, size, marks, error.reason
        size = image.size
        image.thumbnail((max_side, max_side))
        keep = image.width * image.height <= _PNG_PIXELS
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if keep else "JPEG", quality=_JPEG_QUALITY)
        kind = "png" if keep else "jpeg"
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        return f"data:image/{kind};base64,{data}", size, row_marks(self.dataset, row, size), ""


def _parts(
    dataset: LckDataset, record: Mapping[str, Any], regions: list[Region]
) -> tuple[ShownPart, ...]:
    numbers = {k: tag.index for k, tag in dataset.tags(regions).items() if tag.index is not None}
    keys = _PARTS if "question" in record or not _has_whole(record) else _WHOLE
    return tuple(
        ShownPart(title, pieces(read_tokens(record, key), numbers))
        for key, title in keys
        if record.get(key) is not None and not (key == "rationale" and has_empty_rationale(record))
    )


def _has_whole(record: Mapping[str, Any]) -> bool:
    return any(key in record for key, _ in _WHOLE)


def pieces(tokens: Tokens, numbers: Mapping[int, int]) -> tuple[str | int, ...]:
    """Return words as str and the regions between them as their numbers; unknown ids vanish."""
    parts: list[str | int] = []
    for token in tokens:
        if isinstance(token, list):
            parts += [numbers[i] for i in token if i in numbers]
        else:
            parts.append(str(token))
    return tuple(parts)


def _details(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    names = ("source", "split", "image")
    return tuple((n, str(record[n])[:200]) for n in names if record.get(n) is not None)
