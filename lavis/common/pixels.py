"""Images of any mode as RGB with 8 bits a channel; wide samples are scaled, not cut off.

Pillow cuts samples of 16 and 32 bits off at 255, which makes an image white; here they are scaled
by the range of their format, or refused where it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from lavis.common.errors import DECODE_REFUSALS

# What opening or decoding an image raises: Pillow's limit on pixels is an Exception of its own.
IMAGE_REFUSALS: tuple[type[Exception], ...] = (Image.DecompressionBombError, *DECODE_REFUSALS)
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of red, green and blue, in [0, 1]
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF
_RANGES = ((340, 341), (280, 281))  # its tags of the least and the largest sample


class PixelError(ValueError):
    """An image's values have no known range."""


def is_image(name: str) -> bool:
    """Return whether a file's name is an image's; `._a.jpg` is the system's."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB, in the frame in which it is stored, without its metadata.

    Of several frames the first is taken. Orientation tags are neither applied nor kept, so that
    nobody turns the image after boxes were laid on it.

    Raises:
        PixelError: samples of 32 bits whose file does not say their range.
    """
    if image.mode.startswith(("I", "F")):
        image = _scaled(image)
    converted = image.convert("RGB")
    converted.info = {}
    return converted


def _scaled(image: Image.Image) -> Image.Image:
    """Return an image of one wide channel in 8 bits."""
    low, high = _range(image)
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise PixelError(f"mode {image.mode}: values that are no numbers")
    share = np.clip((values - low) / (high - low), 0, 1)
    if _tags(image).get(_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only 8 bits round
        share = 1 - share
    return Image.fromarray(np.rint(share * 255).astype(np.uint8))


def _range(image: Image.Image) -> tuple[float, float]:
    """Return the values that are black and white."""
    tags = _tags(image)
    if image.mode.startswith("I;16"):
        return 0, 2 ** _number(tags.get(_BITS, 16)) - 1
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 0, 65535  # neither has more than 16 bits
    for names in _RANGES:
        if all(name in tags for name in names):
            low, high = (_number(tags[name]) for name in names)
            if low < high < float("inf"):
                return low, high
    raise PixelError(
        f"mode {image.mode}: samples of 32 bits, and the file does not say which value is white; "
        "save it with 8 or 16 bits"
    )


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _number(value: Any) -> float:
    return float(value[0] if isinstance(value, tuple) else value)


def clip_pixels(
    image: Image.Image,
    shortest_edge: int,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """Return `(3, C, C)` float32: resize, centre crop, scale to [0, 1], normalise.

    Args:
        image: of any mode and size.
        shortest_edge: what the shorter edge becomes, bicubic, on 8-bit values.
        crop: C, at most `shortest_edge`.
        mean, std: of each colour.
    """
    width, height = image.size
    if width <= height:
        size = (shortest_edge, int(shortest_edge * height / width))
    else:
        size = (int(shortest_edge * width / height), shortest_edge)
    resized = np.asarray(to_rgb(image).resize(size, Image.Resampling.BICUBIC))
    top, left = ((length - crop) // 2 for length in resized.shape[:2])
    pixels = resized[top : top + crop, left : left + crop]
    scaled = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    values = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)  # (C, C, 3)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
