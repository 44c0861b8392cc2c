"""An image, its regions and its texts, changed together: turned upright, cropped, mirrored.

Shapes: sizes are width, height. All shapes count pixels of the image that stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from PIL import Image, ImageOps

from lavis.common.errors import RecordError
from lavis.common.regions.rle import Rle
from lavis.common.regions.shapes import Box, Point, Polygons, Shape, Size
from lavis.common.regions.sides import swap_sides

_ORIENTATION = 0x0112  # tag of EXIF
# orientation -> whether columns and rows change places, then x and y are mirrored
_TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with regions and the texts that speak of it; each change returns another one.

    Attributes:
        image: decoded.
        shapes: regions in its pixels.
        texts: that may say left and right. Numbers of regions stay as they are; coordinates are
            written after the last change (`lavis.common.regions.conventions.to_model`).

    Example:
        >>> seen = AnnotatedImage(Image.new("RGB", (8, 4)), (Shape.of_box((0, 0, 2, 4)),))
        >>> seen.mirrored().shapes[0].value
        (6.0, 0.0, 8.0, 4.0)
    """

    image: Image.Image
    shapes: tuple[Shape, ...] = ()
    texts: tuple[str, ...] = ()

    def upright(self) -> AnnotatedImage:
        """Return it turned as its EXIF tag says, regions of the stored frame likewise.

        The result has no such tag, so that nothing turns it again.
        """
        orientation = self.image.getexif().get(_ORIENTATION, 1)
        turned = ImageOps.exif_transpose(self.image)
        shapes = tuple(turn_shape(s, self.image.size, orientation) for s in self.shapes)
        return replace(self, image=turned, shapes=shapes)

    def resized(self, size: Size) -> AnnotatedImage:
        """Return it at another size, by Pillow's bicubic filter; masks by the nearest pixel."""
        if size == self.image.size:
            return self
        image = self.image.resize(size, Image.Resampling.BICUBIC)
        return replace(
            self,
            image=image,
            shapes=tuple(resize_shape(shape, self.image.size, size) for shape in self.shapes),
        )

    def cropped(self, window: tuple[int, int, int, int]) -> AnnotatedImage:
        """Return the part within x1, y1, x2, y2, regions cut at its edges.

        Raises:
            RecordError: a region lies wholly outside; a text may name it.
        """
        shapes = tuple(crop_shape(shape, self.image.size, window) for shape in self.shapes)
        lost = [str(place) for place, shape in enumerate(shapes) if shape is None]
        if lost:
            raise RecordError(f"region outside the crop: number {', '.join(lost)} in {window}")
        return replace(self, image=self.image.crop(window), shapes=cast(tuple[Shape, ...], shapes))

    def mirrored(self) -> AnnotatedImage:
        """Return it with left and right changed, in image, regions and texts.

        Raises:
            RecordError: a text whose sides cannot be changed for sure; leave it as it is.
        """
        texts = [swap_sides(text) for text in self.texts]
        for before, after in zip(self.texts, texts, strict=True):
            if after is None:
                raise RecordError(f"no mirror image: the sides in {before[:80]!r} are not clear")
        return AnnotatedImage(
            self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            tuple(turn_shape(shape, self.image.size, 2) for shape in self.shapes),
            tuple(cast(Sequence[str], texts)),
        )


def turn_shape(shape: Shape, size: Size, orientation: int) -> Shape:
    """Return a shape after the transposition of an EXIF orientation, 1 to 8; others change nothing.

    Args:
        size: of the image before.
    """
    transposed, mirror_x, mirror_y = _TURNS.get(orientation, _TURNS[1])
    if isinstance(shape.value, Rle):
        mask = shape.value.to_mask()
        mask = mask.T if transposed else mask
        mask = mask[:, ::-1] if mirror_x else mask
        return Shape.of_mask(mask[::-1] if mirror_y else mask)
    if transposed:
        shape, size = _transposed(shape), (size[1], size[0])
    scale = -1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0
    return shape.moved(scale, (size[0] * mirror_x, size[1] * mirror_y))


def resize_shape(shape: Shape, size: Size, new_size: Size) -> Shape:
    """Return a shape of an image of `size` in one of `new_size`; a mask keeps a pixel at least."""
    if isinstance(shape.value, Rle):
        return Shape.of_mask(resize_mask(shape.value, new_size))
    return shape.moved((new_size[0] / size[0], new_size[1] / size[1]), (0.0, 0.0))


def resize_mask(runs: Rle, size: Size) -> Rle:
    """Return a mask at another size, by the nearest pixel; one pixel stays at least."""
    if size == runs.size:
        return runs
    image = Image.fromarray(runs.to_mask())
    mask = np.array(image.resize(size, Image.Resampling.NEAREST))
    if not mask.any() and not runs.is_empty:
        x, y = Shape.of_mask(runs).innermost()
        mask[int(y * size[1] / runs.size[1]), int(x * size[0] / runs.size[0])] = True
    return Rle.of_mask(mask)


def crop_shape(shape: Shape, size: Size, window: tuple[int, int, int, int]) -> Shape | None:
    """Return the part of a shape within x1, y1, x2, y2, in its pixels; None where there is none."""
    left, top, right, bottom = window
    if isinstance(shape.value, Rle):
        whole = np.zeros((bottom - top, right - left), dtype=bool)  # a window may pass the edges
        column, row = max(left, 0), max(top, 0)
        part = shape.value.to_mask()[row : max(bottom, 0), column : max(right, 0)]
        height, width = part.shape
        whole[row - top : row - top + height, column - left : column - left + width] = part
        return Shape.of_mask(whole) if whole.any() else None
    x1, y1, x2, y2 = shape.box()
    if x2 < left or y2 < top or x1 > right or y1 > bottom:
        return None
    if shape.kind == "polygons":
        parts = tuple(_cut(part, window) for part in cast(Polygons, shape.value))
        kept = tuple(part for part in parts if part)
        return Shape("polygons", kept).moved((1.0, 1.0), (-left, -top)) if kept else None
    moved = shape.moved((1.0, 1.0), (-left, -top))
    if shape.kind == "point":
        return moved
    x1, y1, x2, y2 = cast(Box, moved.value)
    return Shape("box", (max(x1, 0.0), max(y1, 0.0), min(x2, right - left), min(y2, bottom - top)))


def _transposed(shape: Shape) -> Shape:
    if shape.kind == "box":
        x1, y1, x2, y2 = cast(Box, shape.value)
        return Shape("box", (y1, x1, y2, x2))
    parts = tuple(tuple((y, x) for x, y in part) for part in shape.parts())
    return Shape(shape.kind, parts if shape.kind == "polygons" else parts[0][0])


def _cut(part: Sequence[Point], window: tuple[int, int, int, int]) -> tuple[Point, ...]:
    """Return the part of a polygon in a window (Sutherland and Hodgman, 1974)."""
    points = list(part)
    for axis, limit, sign in (
        (0, window[0], 1),
        (0, window[2], -1),
        (1, window[1], 1),
        (1, window[3], -1),
    ):
        cut: list[Point] = []
        for start, end in zip(points[-1:] + points[:-1], points, strict=True):
            inside = [sign * (point[axis] - limit) >= 0 for point in (start, end)]
            if inside[0] != inside[1]:
                share = (limit - start[axis]) / (end[axis] - start[axis])
                meeting = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
                meeting[axis] = float(limit)
                cut.append((meeting[0], meeting[1]))
            if inside[1]:
                cut.append(end)
        points = cut
    return tuple(points)
