"""RandAugment of the BLIP family on PIL images: two of ten operations at a middle level.

Written from its published parameters; shears and turns use Pillow's bilinear affine transform.
Boxes are x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from PIL import Image, ImageEnhance, ImageOps

Box = tuple[float, float, float, float]
Matrix = tuple[float, float, float, float, float, float]  # output (x, y, 1) -> input (x, y)

_OPERATIONS = 2
_PROBABILITY = 0.5
_LEVEL = 5 / 10
_FILL = (128, 128, 128)


def visible_share(box: Box, window: Sequence[float]) -> float:
    """Return the share of a box's area inside a window; of its length where it has no area."""
    x1, y1, x2, y2 = box
    shares = []
    for low, high, first, last in ((x1, x2, window[0], window[2]), (y1, y2, window[1], window[3])):
        if high > low:
            shares.append(max(0.0, min(high, last) - max(low, first)) / (high - low))
        else:
            shares.append(1.0 if first <= low <= last else 0.0)
    return shares[0] * shares[1]


def rand_augment(
    image: Image.Image,
    rng: random.Random,
    *,
    keep: Sequence[Box] = (),
    min_visible: float = 0.9,
) -> Image.Image:
    """Apply two operations drawn with replacement, each with probability 0.5.

    Args:
        image: RGB, any size; the size does not change.
        rng: the only source of randomness.
        keep: boxes of which at least `min_visible` must stay in view; an operation that would
            move one out is left out.
    """
    boxes = list(keep)
    for _ in range(_OPERATIONS):
        operation = rng.choice(_NAMES)
        applied = rng.random() < _PROBABILITY
        sign = rng.choice((-1.0, 1.0))
        if not applied:
            continue
        if operation in _COLOUR:
            image = _COLOUR[operation](image)
        elif operation in _GEOMETRY:
            matrix = _GEOMETRY[operation](sign, image.size)
            moved = [_move(box, matrix) for box in boxes]
            window = (0, 0, *image.size)
            if all(visible_share(box, window) >= min_visible for box in moved):
                boxes = moved
                image = image.transform(
                    image.size,
                    Image.Transform.AFFINE,
                    matrix,
                    resample=Image.Resampling.BILINEAR,
                    fillcolor=_FILL,
                )
    return image


def _enhance(kind: type) -> Callable[[Image.Image], Image.Image]:
    # At level 5 the published factor is 1.0: these two change nothing. Kept for the odds.
    return lambda image: kind(image).enhance(_LEVEL * 1.8 + 0.1)


_COLOUR: dict[str, Callable[[Image.Image], Image.Image]] = {
    "autocontrast": ImageOps.autocontrast,
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "equalize": ImageOps.equalize,
}


def _turn(sign: float, size: tuple[int, int]) -> Matrix:
    angle = math.radians(sign * 30 * _LEVEL)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = size[0] / 2, size[1] / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


_GEOMETRY: dict[str, Callable[[float, tuple[int, int]], Matrix]] = {
    "shear_x": lambda sign, _: (1, sign * 0.3 * _LEVEL, 0, 0, 1, 0),
    "shear_y": lambda sign, _: (1, 0, 0, sign * 0.3 * _LEVEL, 1, 0),
    "translate_x": lambda sign, _: (1, 0, sign * 10 * _LEVEL, 0, 1, 0),
    "translate_y": lambda sign, _: (1, 0, 0, 0, 1, sign * 10 * _LEVEL),
    "rotate": _turn,
}
_NAMES = ("identity", *_COLOUR, *_GEOMETRY)


def _move(box: Box, matrix: Matrix) -> Box:
    """Return the bounding box of a box after the transform (the matrix maps output to input)."""
    a, b, c, d, e, f = matrix
    det = a * e - b * d
    xs, ys = [], []
    for x in (box[0], box[2]):
        for y in (box[1], box[3]):
            u, v = x - c, y - f
            xs.append((e * u - b * v) / det)
            ys.append((a * v - d * u) / det)
    return min(xs), min(ys), max(xs), max(ys)
