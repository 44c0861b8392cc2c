"""From pixels to the numbers of a convention, and back."""

from __future__ import annotations

import math
from typing import cast

from lavis.common.errors import RecordError
from lavis.common.regions.frames import Frame
from lavis.common.regions.mentions import Mention, RegionTextError, shown
from lavis.common.regions.shapes import Box, Point, Shape, Size
from lavis.common.regions.table import Convention

# Models overshoot the image a little; what lies further out is of another convention.
_OVERSHOOT = 0.1  # of a side


def numbers_of_shape(shape: Shape, size: Size, convention: Convention) -> tuple[float, ...]:
    """Return what a convention writes for a shape: four numbers of a box, two of a point or cells.

    Where the model writes no boxes, a box becomes its middle, a mask or polygons their innermost
    point; where it writes no points, a point is refused.

    Raises:
        RegionTextError: the shape has no text, or lies outside the image or of what is shown of it.
    """
    if shape.kind == "point" or "box" not in convention.writes:
        if "point" not in convention.writes:
            raise RegionTextError(f"no text: {convention.name} writes no points")
        return _ordered(_written(_clipped_point(shape, size), size, convention), convention)
    x1, y1, x2, y2 = _clipped_box(shape.box(), (0, 0, *size), shape.box())
    if convention.style == "patches":
        return _cells((x1, y1, x2, y2), convention.frame(size), convention)
    corners = _written((x1, y1), size, convention) + _written((x2, y2), size, convention)
    return _ordered(corners, convention)


def shape_of_mention(mention: Mention, size: Size, convention: Convention) -> tuple[Shape, bool]:
    """Return the shape that a reply means, in pixels of the image, and whether it was clipped.

    Inverted corners are swapped, places a little outside clipped.

    Raises:
        RegionTextError: numbers that the convention cannot mean.
    """
    if convention.style == "patches":
        return Shape("box", _box_of_cells(mention, convention.frame(size), convention)), False
    numbers = _ordered(mention.numbers, convention)
    frame = convention.frame(size) if convention.steps == "pixels" else None
    _check(numbers, mention, frame, convention)
    points = [
        _read(cast(Point, numbers[i : i + 2]), size, frame, convention)
        for i in range(0, len(numbers), 2)
    ]
    (x1, y1), (x2, y2) = points[0], points[-1]
    box = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    inside = _clipped_box(box, (0, 0, *size), mention.text)
    clipped = any(abs(a - b) > 1e-9 * max(size) for a, b in zip(box, inside, strict=True))
    if mention.is_point:
        return Shape("point", inside[:2]), clipped
    return Shape("box", inside), clipped


def rounding_bound(size: Size, convention: Convention) -> Point:
    """Return how far, in pixels of x and y, a place inside the image can be from what is read back.

    Example:
        >>> from lavis.common.regions.table import convention
        >>> rounding_bound((1280, 853), convention("per_mille"))
        (0.64, 0.4265)
    """
    if convention.style == "patches":
        return _cell_size(convention.frame(size), convention)
    width, height = size
    half = 0.5 * 10.0**-convention.decimals
    if convention.steps == "pixels":
        x1, y1, x2, y2 = convention.frame(size).place
        return half * width / (x2 - x1), half * height / (y2 - y1)
    return half * width / convention.steps, half * height / convention.steps


def _written(point: Point, size: Size, convention: Convention) -> tuple[float, ...]:
    if convention.steps == "pixels":
        frame = convention.frame(size)
        pairs = list(zip(frame.to_model(point), frame.model, strict=True))
    else:
        steps = convention.steps
        pairs = [(c * steps / side, steps) for c, side in zip(point, size, strict=True)]
    if convention.rounding == "floor":
        return tuple(min(math.floor(value), steps - 1) for value, steps in pairs)
    return tuple(round(value, convention.decimals) for value, _ in pairs)


def _read(point: Point, size: Size, frame: Frame | None, convention: Convention) -> Point:
    if frame is not None:
        return frame.to_original(point)
    assert convention.steps != "pixels", "such a convention has a frame"
    middle = 0.5 if convention.rounding == "floor" else 0.0
    x, y = ((c + middle) * side / convention.steps for c, side in zip(point, size, strict=True))
    return x, y


def _check(
    numbers: tuple[float, ...], mention: Mention, frame: Frame | None, convention: Convention
) -> None:
    """Raise `RegionTextError` for numbers of another scale."""
    whole = all(number == int(number) for number in numbers)
    if frame is not None:
        limits: tuple[float, float] = frame.model
    else:
        limits = (float(convention.steps), float(convention.steps))
    bins = convention.style in ("loc4", "loc_bins")
    if bins:
        last = limits[0] - (convention.rounding == "floor")
        wrong = not whole or min(numbers) < 0 or max(numbers) > last
    else:
        wrong = any(
            not -_OVERSHOOT * limit <= number <= (1 + _OVERSHOOT) * limit
            for number, limit in zip(numbers, limits * 2, strict=False)
        )
        # whole numbers are meant, and these are shares of the sides
        wrong |= convention.decimals == 0 and not whole and max(map(abs, numbers)) <= 1
    if wrong:
        scale = "x".join(f"{limit:g}" for limit in dict.fromkeys(limits))
        raise RegionTextError(
            f"impossible place: {list(numbers)} on the scale {scale} of {convention.name}: "
            f"{shown(mention.text)}"
        )


def _ordered(numbers: tuple[float, ...], convention: Convention) -> tuple[float, ...]:
    """Return numbers with x and y of each place in the other order where y comes first."""
    if convention.order == "xyxy":
        return numbers
    return tuple(numbers[place ^ 1] for place in range(len(numbers)))


def _clipped_point(shape: Shape, size: Size) -> Point:
    x, y = shape.centre() if shape.kind in ("box", "point") else shape.innermost()
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        box = _clipped_box(shape.box(), (0, 0, *size), shape.box())
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return x, y


def _clipped_box(box: Box, window: Box, what: object) -> Box:
    """Return the part of a box in a window; raises `RegionTextError` where there is none."""
    x1, y1, x2, y2 = box
    left, top, right, bottom = window
    if x2 < left or y2 < top or x1 > right or y1 > bottom:
        raise RegionTextError(f"outside the image: {shown(str(what))}")
    return max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)


def _cells(box: Box, frame: Frame, convention: Convention) -> tuple[float, float]:
    """Return Kosmos-2's cells of the upper left and the lower right corner."""
    x1, y1, x2, y2 = _clipped_box(box, frame.visible(), box)
    steps = int(convention.steps)
    left, top = frame.to_model((x1, y1))
    right, bottom = frame.to_model((x2, y2))
    width, height = frame.model
    columns = [min(max(math.floor(left / width * steps), 0), steps - 1)]
    rows = [min(max(math.floor(top / height * steps), 0), steps - 1)]
    columns.append(min(max(math.ceil(right / width * steps - 1), columns[0]), steps - 1))
    rows.append(min(max(math.ceil(bottom / height * steps - 1), rows[0]), steps - 1))
    return rows[0] * steps + columns[0], rows[1] * steps + columns[1]


def _box_of_cells(mention: Mention, frame: Frame, convention: Convention) -> Box:
    """Return the box of two cells: by their middles, or by outer edges if they share a line."""
    steps = int(convention.steps)
    if not all(n == int(n) and 0 <= n < steps * steps for n in mention.numbers):
        raise RegionTextError(
            f"impossible place: {list(mention.numbers)} of {steps * steps} cells: "
            f"{shown(mention.text)}"
        )
    (row, column), (row2, column2) = (divmod(int(n), steps) for n in mention.numbers)
    column, column2 = sorted((column, column2))
    row, row2 = sorted((row, row2))
    start, end = (0.0, 1.0) if column == column2 or row == row2 else (0.5, 0.5)
    width, height = frame.model[0] / steps, frame.model[1] / steps
    x1, y1 = frame.to_original(((column + start) * width, (row + start) * height))
    x2, y2 = frame.to_original(((column2 + end) * width, (row2 + end) * height))
    return _clipped_box((x1, y1, x2, y2), (0, 0, *frame.original), mention.text)


def _cell_size(frame: Frame, convention: Convention) -> Point:
    x1, y1, x2, y2 = frame.place
    steps = int(convention.steps)
    return (
        frame.model[0] / steps * frame.original[0] / (x2 - x1),
        frame.model[1] / steps * frame.original[1] / (y2 - y1),
    )


def check_size(size: Size) -> None:
    """Raise `RecordError` unless width and height are whole numbers above 0."""
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise RecordError(f"bad image size: {size}, expected width and height in pixels")
