"""CLIP's picture processing with Pillow, equal bit for bit to what its published weights saw.

Shapes: C edge of the square that is cut out, pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def clip_pixels(
    picture: Image.Image,
    shortest_edge: int,
    crop: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> np.ndarray:
    """Return `(3, C, C)` float32: resize, centre crop, scale to [0, 1], normalise.

    Args:
        picture: of any mode and size.
        shortest_edge: what the shorter edge becomes, bicubic, on 8-bit values.
        crop: C, at most `shortest_edge`.
        mean, std: of each colour.
    """
    from PIL import Image

    from lavis.common.pixels import to_rgb

    width, height = picture.size
    if width <= height:
        size = (shortest_edge, int(shortest_edge * height / width))
    else:
        size = (int(shortest_edge * width / height), shortest_edge)
    resized = np.asarray(to_rgb(picture).resize(size, Image.Resampling.BICUBIC))
    top, left = ((length - crop) // 2 for length in resized.shape[:2])
    pixels = resized[top : top + crop, left : left + crop]
    scaled = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    values = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)  # (C, C, 3)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
