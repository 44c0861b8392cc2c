"""A region of an image: box, polygons, mask or point, in pixels of the decoded image.

Pixel (column x, row y) covers x to x + 1 and y to y + 1; its middle is at x + .5, y + .5. A box is
x1, y1, x2, y2, and x2, y2 lie behind its last pixel. Shapes: H image height, W image width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from lavis.common.errors import RecordError, finite
from lavis.common.regions.rle import Rle, rasterize

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Polygons = tuple[tuple[Point, ...], ...]
Size = tuple[int, int]  # width, height
Kind = Literal["box", "polygons", "mask", "point"]
_LARGEST_PIXEL = 2**30


@dataclass(frozen=True, slots=True)
class Shape:
    """One of a box, polygons, a mask and a point.

    Attributes:
        kind: which of them.
        value: a box, polygons, an `Rle` or a point.

    Example:
        >>> Shape.of_box((10, 20, 30, 60)).centre()
        (20.0, 40.0)
    """

    kind: Kind
    value: Box | Polygons | Rle | Point

    @classmethod
    def of_box(cls, box: Iterable[Any]) -> Shape:
        """Return a box; raises `RecordError` unless it is 4 finite numbers in order."""
        numbers = _finite(box, "box")
        if len(numbers) != 4:
            raise RecordError(f"bad box: {list(numbers)}, expected 4 numbers")
        x1, y1, x2, y2 = numbers
        if x2 < x1 or y2 < y1:
            raise RecordError(f"bad box: {list(numbers)} is inverted")
        return cls("box", (x1, y1, x2, y2))

    @classmethod
    def of_point(cls, point: Iterable[Any]) -> Shape:
        """Return a point; raises `RecordError` unless it is 2 finite numbers."""
        numbers = _finite(point, "point")
        if len(numbers) != 2:
            raise RecordError(f"bad point: {list(numbers)}, expected 2 numbers")
        return cls("point", (numbers[0], numbers[1]))

    @classmethod
    def of_polygons(cls, parts: Iterable[Iterable[Iterable[Any]]]) -> Shape:
        """Return polygons, which cover their union; raises `RecordError` for odd points or none."""
        found = tuple(
            tuple(cast(Point, cls.of_point(point).value) for point in part) for part in parts
        )
        if not any(found):
            raise RecordError("bad polygon: no points")
        return cls("polygons", found)

    @classmethod
    def of_mask(cls, mask: np.ndarray | Rle) -> Shape:
        """Return a mask, `(H, W)` or its runs; raises `RecordError` where it is empty."""
        runs = mask if isinstance(mask, Rle) else Rle.of_mask(mask)
        if runs.is_empty:
            raise RecordError("bad mask: no pixel is inside")
        return cls("mask", runs)

    def box(self) -> Box:
        """Return the smallest box around it; around a point it has no area."""
        if isinstance(self.value, Rle):
            return _box_of_mask(self.value.to_mask())
        if self.kind == "box":
            return cast(Box, self.value)
        points = [point for part in self.parts() for point in part]
        xs, ys = zip(*points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def parts(self) -> Polygons:
        """Return polygons as lists of points; of a box its corners, of a point itself.

        Raises:
            ValueError: it is a mask, which has no outline of its own.
        """
        if isinstance(self.value, Rle):
            raise ValueError("a mask has no points")
        if self.kind == "polygons":
            return cast(Polygons, self.value)
        if self.kind == "point":
            return ((cast(Point, self.value),),)
        x1, y1, x2, y2 = cast(Box, self.value)
        return (((x1, y1), (x2, y1), (x2, y2), (x1, y2)),)

    def mask(self, size: Size) -> np.ndarray:
        """Return `(H, W)` bool: pixels whose middle is inside, or else the one at the centre.

        Args:
            size: width and height of the image; parts outside are cut off.

        Raises:
            RecordError: a mask of another size.
        """
        if isinstance(self.value, Rle):
            if self.value.size != tuple(size):
                raise RecordError(f"bad mask: it is of {self.value.size}, the image of {size}")
            return self.value.to_mask()
        mask = rasterize(self.parts(), size)
        if not mask.any():
            x, y = self.centre()
            column = min(max(math.floor(x), 0), size[0] - 1)
            mask[min(max(math.floor(y), 0), size[1] - 1), column] = True
        return mask

    def centre(self) -> Point:
        """Return the middle of its box."""
        x1, y1, x2, y2 = self.box()
        return (x1 + x2) / 2, (y1 + y2) / 2

    def innermost(self) -> Point:
        """Return a point well inside, where a number is read best; of a mask, one of its pixels.

        It is the middle of a largest square of inside pixels, the one nearest to the others' mean.
        """
        if self.kind in ("box", "point"):
            return self.centre()
        x1, y1, x2, y2 = self.box()
        left, top = math.floor(x1), math.floor(y1)
        if isinstance(self.value, Rle):
            inside = self.value.to_mask()[top : math.ceil(y2), left : math.ceil(x2)]
        else:
            size = max(math.ceil(x2) - left, 1), max(math.ceil(y2) - top, 1)
            moved = Shape.of_polygons(
                tuple((x - left, y - top) for x, y in part) for part in self.parts()
            )
            inside = moved.mask(size)
        column, row = _innermost_pixel(inside)
        return left + column + 0.5, top + row + 0.5

    def moved(self, scale: Point, offset: Point) -> Shape:
        """Return it with x times `scale[0]` plus `offset[0]`, and y likewise.

        Raises:
            ValueError: it is a mask, whose pixels cannot be moved by parts.
        """
        if isinstance(self.value, Rle):
            raise ValueError("a mask is resized with its image")
        if self.kind == "box":
            x1, y1, x2, y2 = cast(Box, self.value)
            xs = sorted((x1 * scale[0] + offset[0], x2 * scale[0] + offset[0]))
            ys = sorted((y1 * scale[1] + offset[1], y2 * scale[1] + offset[1]))
            return Shape("box", (xs[0], ys[0], xs[1], ys[1]))
        moved = tuple(
            tuple((x * scale[0] + offset[0], y * scale[1] + offset[1]) for x, y in part)
            for part in self.parts()
        )
        return Shape(self.kind, moved if self.kind == "polygons" else moved[0][0])


def _finite(values: Iterable[Any], what: str) -> tuple[float, ...]:
    try:
        items = list(values)
    except TypeError:
        raise RecordError(f"bad {what}: it is no list of numbers") from None
    numbers = [finite(value) for value in items]
    if any(number is None or abs(number) >= _LARGEST_PIXEL for number in numbers):
        raise RecordError(f"bad {what}: {str(items)[:60]} are no pixels")
    return tuple(cast(Sequence[float], numbers))


def _box_of_mask(mask: np.ndarray) -> Box:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _innermost_pixel(mask: np.ndarray) -> tuple[int, int]:
    """Return column and row of the middle of a largest odd square inside a mask."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    low, high = 0, (min(mask.shape) - 1) // 2  # half of a square's side, rounded down
    while low < high:
        middle = (low + high + 1) // 2
        if _full_squares(sums, middle).any():
            low = middle
        else:
            high = middle - 1
    rows, columns = np.nonzero(_full_squares(sums, low))
    distance = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    best = int(distance.argmin())
    return int(columns[best]) + low, int(rows[best]) + low


def _full_squares(sums: np.ndarray, half: int) -> np.ndarray:
    """Return for each square of side 2 half + 1 whether all its pixels are inside."""
    side = 2 * half + 1
    covered = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    full: np.ndarray = covered == side * side
    return full
