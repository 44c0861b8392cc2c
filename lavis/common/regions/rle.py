"""Masks as run lengths, COCO's compressed form of them, and masks of PNG files.

Shapes: H image height, W image width; a mask is `(H, W)` bool. Runs alternate between 0 and 1,
start with 0 and go column by column.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from lavis.common.errors import RecordError, record_errors

_LARGEST_SIDE = 1 << 16  # pixels; a mask of more is refused before memory is asked for
_LARGEST_MASK = 1 << 28
_PNG_DATA_URL = "data:image/png;base64,"
_HALF = 127  # of 8 bits: the border in masks with soft edges


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask of an image by its runs.

    Attributes:
        size: width and height in pixels.
        counts: lengths of the runs; their sum is width x height.

    Raises:
        RecordError: no such size, runs that are no lengths, or another sum.

    Example:
        >>> Rle.of_coco({"size": [4, 6], "counts": "53:OJ"}).counts
        (5, 3, 10, 2, 4)
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        width, height = _checked_size(self.size)
        if not all(_is_count(count) for count in self.counts):
            raise RecordError(f"bad mask: runs are no lengths: {_shown(self.counts)}")
        if (total := sum(self.counts)) != width * height:
            raise RecordError(f"bad mask: runs cover {total} pixels of {width} x {height}")

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Rle:
        """Return the runs of a mask, `(H, W)` of any number type; what is not 0 is inside."""
        height, width = mask.shape
        flat = np.asarray(mask != 0).T.reshape(-1)
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        if flat.size and flat[0]:
            counts.insert(0, 0)
        return cls((width, height), tuple(counts))

    @classmethod
    def of_coco(cls, value: Any) -> Rle:
        """Return COCO's form, `size` [height, width] and `counts`, a text or a list of lengths.

        Raises:
            RecordError: another form.
        """
        if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
            raise RecordError(f"bad mask: {_shown(value)}, expected size and counts")
        size, counts = value["size"], value["counts"]
        if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
            raise RecordError(f"bad mask: size is {_shown(size)}, expected height and width")
        if isinstance(counts, bytes):
            counts = counts.decode("latin-1")
        if isinstance(counts, str):
            counts = decode_counts(counts)
        if not isinstance(counts, Sequence):
            raise RecordError(f"bad mask: counts are {_shown(counts)}, expected a text or lengths")
        return cls((size[1], size[0]), tuple(counts))

    @classmethod
    def of_image(cls, image: Image.Image) -> Rle:
        """Return the mask of an image: its alpha channel above 0 where it has one, else its grey.

        Grey images of two values are inside where they are not 0; of more, which have soft edges,
        above half.
        """
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            return cls.of_mask(np.asarray(image.convert("RGBA"))[..., 3])
        grey = np.asarray(image if image.mode in ("P", "1", "L") else image.convert("L"))
        if grey.dtype == bool or np.unique(grey).size <= 2:
            return cls.of_mask(grey)
        return cls.of_mask(grey > _HALF)

    @classmethod
    def of_png(cls, content: bytes | str) -> Rle:
        """Return the mask of a PNG file's bytes, or of its base64 text or data URL.

        Raises:
            RecordError: no such file, or one that is too large.
        """
        if isinstance(content, str):
            try:
                content = base64.b64decode(content.removeprefix(_PNG_DATA_URL), validate=True)
            except (binascii.Error, ValueError):
                raise RecordError(f"bad mask: {_shown(content)} is no PNG in base64") from None
        with record_errors("bad mask", decoding=True):
            image = Image.open(io.BytesIO(content), formats=["PNG"])
            _checked_size(image.size)
            return cls.of_image(image)

    def to_mask(self) -> np.ndarray:
        """Return `(H, W)` bool."""
        width, height = self.size
        values = np.arange(len(self.counts)) % 2 == 1
        mask: np.ndarray = np.repeat(values, self.counts).reshape(width, height).T
        return mask

    def to_coco(self) -> dict[str, Any]:
        """Return `size` [height, width] and the compressed `counts`."""
        return {"size": [self.size[1], self.size[0]], "counts": encode_counts(self.counts)}

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is inside."""
        return not any(self.counts[1::2])


def encode_counts(counts: Sequence[int]) -> str:
    """Return run lengths as COCO's text.

    A character minus 48 holds 5 bits, the lowest first; 32 says that more follow, and 16 in the
    last one is the sign. From the fourth run on the difference to the run two before is written.

    Example:
        >>> encode_counts([5, 3, 10, 2, 4])
        '53:OJ'
    """
    text = []
    for place, count in enumerate(counts):
        value = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            last = value == (-1 if bits & 16 else 0)
            text.append(chr(48 + (bits if last else bits | 32)))
            if last:
                break
    return "".join(text)


def decode_counts(text: str) -> list[int]:
    """Return the run lengths of COCO's text; raises `RecordError` for any other."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise RecordError(f"bad mask: {_shown(text)} is no run lengths of COCO")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise RecordError(f"bad mask: {_shown(text)} ends within a run length")
    return counts


def rasterize(parts: Sequence[Sequence[tuple[float, float]]], size: tuple[int, int]) -> np.ndarray:
    """Return `(H, W)` bool of the pixels whose middle is inside any of the polygons.

    Args:
        parts: lists of (x, y); each is closed, by the even-odd rule.
        size: width and height.
    """
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    for part in parts:
        if len(part) < 3:
            continue
        points = np.asarray(part, dtype=np.float64)
        first = int(np.clip(np.floor(points[:, 1].min()), 0, height))
        last = int(np.clip(np.ceil(points[:, 1].max()), 0, height))
        following = np.roll(points, -1, axis=0)
        for row in range(first, last):
            crossings = _crossings(points, following, row + 0.5)
            for left, right in zip(crossings[::2], crossings[1::2], strict=True):
                low, high = np.clip(np.ceil([left - 0.5, right - 0.5]), 0, width).astype(int)
                mask[row, low:high] = True
    return mask


def _crossings(points: np.ndarray, following: np.ndarray, y: float) -> list[float]:
    """Return where a horizontal line meets a polygon's edges, sorted."""
    crossed = (points[:, 1] <= y) != (following[:, 1] <= y)
    start, end = points[crossed], following[crossed]
    share = (y - start[:, 1]) / (end[:, 1] - start[:, 1])
    found: list[float] = np.sort(start[:, 0] + share * (end[:, 0] - start[:, 0])).tolist()
    return found


def _checked_size(size: Sequence[Any]) -> tuple[int, int]:
    width, height = size
    if not (_is_count(width) and _is_count(height) and 0 < min(size) <= max(size) <= _LARGEST_SIDE):
        raise RecordError(f"bad mask: size is {_shown(list(size))}, expected two sides in pixels")
    if width * height > _LARGEST_MASK:
        raise RecordError(f"bad mask: {width} x {height} pixels, more than {_LARGEST_MASK}")
    return width, height


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
