"""Where a page sets the numbers of drawn regions: on their boxes, apart from each other, inside.

Marks lie over the image that the model sees and change none of its pixels. Places are in percent
of the image, so they hold at every size. A badge has a fixed size in the page's pixels; space is
reserved for an image `_SHOWN` pixels long, smaller than on any page (`regions.css` makes badges
smaller where images are, 215 pixels at least). Each badge hangs from the point that touches its
box, so on larger images it only shrinks towards that point and comes no nearer to others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis.processors.region import DrawnRegion, Palette, css_color, ink_on

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.rows import Row

_SHOWN = 265  # pixels of the longer side of the smallest image with such badges
_BADGE_HEIGHT, _BADGE_PADDING, _DIGIT_WIDTH = 19.0, 11.0, 8.0  # pixels; see `.lv-badge`
_OVERLAP = 0.25  # share of its height by which a badge outside a box stands on the edge
_Rect = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Badge:
    """A badge's place.

    Attributes:
        left, top: the point it hangs from, percent of the image.
        shift_x, shift_y: its offset from there, percent of its own size, -100 to 0.
        lead: x1, y1, x2, y2 of a line to the box, where there was no room on it; else None.
    """

    left: float
    top: float
    shift_x: float
    shift_y: float
    lead: _Rect | None = None


@dataclass(frozen=True, slots=True)
class RegionMark:
    """A drawn region as pages show it.

    Attributes:
        number: its number in text and image.
        color: its outline, `#rrggbb`.
        ink: black or white, readable on `color`.
        name: the detector's guess, or empty.
        box: left, top, width, height in percent of the image, clipped to it.
    """

    number: int
    color: str
    ink: str
    name: str
    box: _Rect
    badge: Badge

    @property
    def left(self) -> float:
        """Left edge of the box in percent of the image's width."""
        return self.box[0]

    @property
    def top(self) -> float:
        """Upper edge of the box in percent of the image's height."""
        return self.box[1]

    @property
    def title(self) -> str:
        """Text for screen readers and pointers."""
        return f"region {self.number}" + (f": {self.name}" if self.name else "")


def row_marks(dataset: RecordDataset, row: Row, size: tuple[int, int]) -> tuple[RegionMark, ...]:
    """Return the marks of a row's image; `size` is that of `dataset.drawn_image(row)`."""
    if row.drawing is None or row.drawing.crop is not None:
        return ()
    names = [region.object_name for region in row.drawing.regions]
    return region_marks(row.drawing.drawn, size, palette=dataset.palette, names=names)


def region_marks(
    drawn: Sequence[DrawnRegion],
    size: tuple[int, int],
    *,
    palette: Palette = "released",
    names: Sequence[str] = (),
) -> tuple[RegionMark, ...]:
    """Return the marks of an image's drawn regions, in order.

    Args:
        drawn: a region without a colour in the palette is neither drawn nor marked.
        size: width and height of the image that the boxes are of.
        names: by place in `drawn`; missing ones are empty.
    """
    kept = [r for r in drawn if palette != "person_xyz" or r.color_id < 3]
    boxes = [_percent(_bounds(region), size) for region in kept]
    badges = place_badges(boxes, [r.color_id for r in kept], size)
    by_number = dict(zip((r.color_id for r in drawn), names, strict=False))
    marks = []
    for region, box, badge in zip(kept, boxes, badges, strict=True):
        color = css_color(region.color_id, palette)
        left, top, right, bottom = box
        marks.append(
            RegionMark(
                number=region.color_id,
                color=color,
                ink=ink_on(color),
                name=by_number.get(region.color_id, ""),
                box=(left, top, right - left, bottom - top),
                badge=badge,
            )
        )
    return tuple(marks)


def place_badges(
    boxes: Sequence[_Rect], numbers: Sequence[int], size: tuple[int, int]
) -> list[Badge]:
    """Return a badge for each box; small boxes, which have the fewest places, choose first.

    Args:
        boxes: left, top, right, bottom in percent of the image.
        size: width and height of the image.
    """
    scale = _SHOWN / max(size)
    shown = size[0] * scale, size[1] * scale
    taken: list[_Rect] = []
    badges: dict[int, Badge] = {}
    for place in sorted(range(len(boxes)), key=lambda i: (_area(boxes[i]), i)):
        width = _BADGE_PADDING + _DIGIT_WIDTH * len(str(numbers[place]))
        needs = min(100.0, 100 * width / shown[0]), min(100.0, 100 * _BADGE_HEIGHT / shown[1])
        badge = _choose(boxes[place], needs, taken)
        badges[place] = badge
        taken.append(_covered(badge, needs))
    return [badges[place] for place in range(len(boxes))]


def _choose(box: _Rect, needs: tuple[float, float], taken: Sequence[_Rect]) -> Badge:
    """Return the first free place inside the image, else the least covered one."""
    first: tuple[float, Badge] | None = None
    for badge in itertools.chain(_on_box(box, needs), _elsewhere(box, needs)):
        covered = _covered(badge, needs)
        if min(covered) < -1e-6 or max(covered) > 100 + 1e-6:
            continue
        overlap = sum(_shared(covered, other) for other in taken)
        if overlap <= 1e-6:
            return badge
        if first is None or overlap < first[0]:
            first = overlap, badge
    assert first is not None, "the image's corner is always a place inside it"
    return first[1]


def _on_box(box: _Rect, needs: tuple[float, float]) -> Iterator[Badge]:
    """Yield places on a box: corners, then edges, and, for a small box, outside first."""
    left, top, right, bottom = box
    wide, high = needs
    inside = [
        *(Badge(left, top, 0, 0), Badge(right, top, -100, 0)),
        *(Badge(left, bottom, 0, -100), Badge(right, bottom, -100, -100)),
    ]
    out = 100 * _OVERLAP
    outside = [
        *(Badge(left, top, 0, out - 100), Badge(left, bottom, 0, -out)),
        *(Badge(right, top, -100, out - 100), Badge(right, bottom, -100, -out)),
        *(Badge(left, top, -100, 0), Badge(right, top, 0, 0)),
        *(Badge(left, bottom, -100, -100), Badge(right, bottom, 0, -100)),
        *(Badge(left, top, -100, -100), Badge(right, top, 0, -100)),
        *(Badge(left, bottom, -100, 0), Badge(right, bottom, 0, 0)),
    ]
    if right - left >= 2 * wide and bottom - top >= 2 * high:
        yield from inside
        for x in _steps(left, right, wide):
            yield from (Badge(x, top, 0, 0), Badge(x, bottom, 0, -100))
        for y in _steps(top, bottom, high):
            yield from (Badge(left, y, 0, 0), Badge(right, y, -100, 0))
        yield from outside
    else:
        yield from outside
        yield from inside
    for y in _steps(top, bottom, high):
        for x in _steps(left, right, wide):
            yield Badge(x, y, 0, 0)


def _elsewhere(box: _Rect, needs: tuple[float, float]) -> Iterator[Badge]:
    """Yield places off the box, the nearest first, with a line to it."""
    wide, high = needs
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    # A finer grid than badges are large: free space need not lie on its lines.
    spots = [
        (x, y) for x in _steps(0, 100 - wide, wide / 2) for y in _steps(0, 100 - high, high / 2)
    ]
    spots += [(x, y) for x in (0.0, 100 - wide) for y in (0.0, 100 - high)]
    spots.sort(
        key=lambda p: (p[0] + wide / 2 - middle[0]) ** 2 + (p[1] + high / 2 - middle[1]) ** 2
    )
    for x, y in spots:
        yield Badge(x, y, 0, 0, lead=(x, y, _clamp(x, box[0], box[2]), _clamp(y, box[1], box[3])))


def _steps(low: float, high: float, step: float) -> list[float]:
    """Return places from `low` to `high`."""
    return [low + step * n for n in range(int((high - low) / step) + 1)] if high >= low else []


def _covered(badge: Badge, needs: tuple[float, float]) -> _Rect:
    """Return the largest part of the image that a badge covers."""
    left = badge.left + badge.shift_x / 100 * needs[0]
    top = badge.top + badge.shift_y / 100 * needs[1]
    return left, top, left + needs[0], top + needs[1]


def _shared(first: _Rect, second: _Rect) -> float:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return across * down if across > 0 and down > 0 else 0.0


def _area(box: _Rect) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _bounds(region: DrawnRegion) -> _Rect:
    """Return the bounding box of what is drawn."""
    if region.mask is not None:
        return region.shape.box()
    points = [point for part in region.polygons or () for point in part]
    if not points:
        return region.box
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _percent(box: _Rect, size: tuple[int, int]) -> _Rect:
    width, height = size
    return (
        _clamp(100 * box[0] / width, 0, 100),
        _clamp(100 * box[1] / height, 0, 100),
        _clamp(100 * box[2] / width, 0, 100),
        _clamp(100 * box[3] / height, 0, 100),
    )


def _clamp(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))
