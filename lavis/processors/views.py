"""Ways to show a model the regions of an image: numbers on them, crops, cut-outs, a mask channel.

Plain drawing is in `lavis.processors.region`. Sizes are width, height.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from lavis.common.regions.shapes import Box, Point, Size
from lavis.processors.region import DrawnRegion, Palette, css_color, draw_regions, has_color, ink_on

# Rows of digits, 5 cells wide, the highest bit left: a font of one's own is equal everywhere.
_DIGITS = (
    (14, 17, 19, 21, 25, 17, 14),
    (4, 12, 4, 4, 4, 4, 14),
    (14, 17, 1, 2, 4, 8, 31),
    (31, 2, 4, 2, 1, 17, 14),
    (2, 6, 10, 18, 31, 2, 2),
    (31, 16, 30, 1, 1, 17, 14),
    (6, 8, 16, 30, 17, 17, 14),
    (31, 1, 2, 4, 8, 8, 8),
    (14, 17, 17, 14, 17, 17, 14),
    (14, 17, 17, 15, 1, 2, 12),
)
_CELLS_HIGH, _CELLS_WIDE, _PADDING = 7, 6, 2  # a digit's width holds the gap to the next
_CELLS = 200  # of a badge's font in the longer side of the image
_SMALLEST_CROP = 48.0  # pixels that a box is grown to before it is cut out (Describe Anything)
_FACTOR = 3.0  # sides of a crop in sides of its box


def mark_regions(
    image: Image.Image,
    regions: Sequence[DrawnRegion],
    *,
    palette: Palette = "distinct",
    width: int = 2,
) -> Image.Image:
    """Return a copy of an RGB image with each region drawn and its number on it.

    A number stands at the region's innermost point (Set-of-Mark, Yang et al. 2023), or where it
    covers none of the others; its size grows with the image. Small regions, which have the fewest
    places, choose first.
    """
    drawn = draw_regions(image, regions, palette=palette, width=width)
    regions = [region for region in regions if has_color(region.color_id, palette)]
    cell = max(1, math.ceil(max(image.size) / _CELLS))
    taken: list[Box] = []
    places: dict[int, Box] = {}
    order = sorted(range(len(regions)), key=lambda i: (_area(regions[i].box), i))
    for place in order:
        size = _badge_size(regions[place].color_id, cell)
        badge = _free_place(regions[place], size, image.size, taken)
        taken.append(badge)
        places[place] = badge
    for place, region in enumerate(regions):
        color = css_color(region.color_id, palette)
        _draw_badge(drawn, region.color_id, places[place], cell, color)
    return drawn


def crop_window(box: Box, size: Size) -> tuple[int, int, int, int]:
    """Return the part of an image to show for a box: three times its sides, and not too small.

    A box below 48 pixels is first grown about its centre, then one width and height is added on
    each side, and the result is cut at the image's edges (Describe Anything's focal crop).

    Args:
        size: of the image.
    """
    sides = [max(box[axis + 2] - box[axis], _SMALLEST_CROP) for axis in (0, 1)]
    window = []
    for axis in (0, 1):
        centre = (box[axis] + box[axis + 2]) / 2
        centre = min(max(centre, 0.0), float(size[axis]))
        first = max(math.floor(centre - _FACTOR / 2 * sides[axis]), 0)
        last = min(math.ceil(centre + _FACTOR / 2 * sides[axis]), size[axis])
        window.append((min(first, size[axis] - 1), last))
    return window[0][0], window[1][0], window[0][1], window[1][1]


def crop_views(view: Image.Image, regions: Sequence[DrawnRegion]) -> list[Image.Image]:
    """Return what `crop_window` cuts out of a view for each region, all in pixels of the view."""
    return [view.crop(crop_window(region.shape.box(), view.size)) for region in regions]


def cut_out(image: Image.Image, region: DrawnRegion) -> Image.Image:
    """Return the region alone, at its place on white; the image keeps its size."""
    mask = Image.fromarray(region.shape.mask(image.size))
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=mask)
    return white


def with_mask_channel(image: Image.Image, region: DrawnRegion) -> Image.Image:
    """Return an RGBA image whose alpha is the region's mask, as Describe Anything reads it.

    Alpha is 0 or 255. To be sent as PNG: JPEG has none. Other models see the rest of such an image
    white, since their processors lay it on white.
    """
    found = image.convert("RGB")
    found.putalpha(Image.fromarray(region.shape.mask(image.size).astype(np.uint8) * 255))
    return found


def _badge_size(number: int, cell: int) -> Size:
    digits = len(str(number))
    width = _CELLS_WIDE * digits - 1 + 2 * _PADDING
    return width * cell, (_CELLS_HIGH + 2 * _PADDING) * cell


def _free_place(region: DrawnRegion, badge: Size, size: Size, taken: Sequence[Box]) -> Box:
    """Return where a badge covers least of the others, the first such place."""
    best: tuple[float, Box] | None = None
    for x, y in _places(region):
        left = min(max(x - badge[0] / 2, 0), max(size[0] - badge[0], 0))
        top = min(max(y - badge[1] / 2, 0), max(size[1] - badge[1], 0))
        covered = (int(left), int(top), int(left) + badge[0], int(top) + badge[1])
        overlap = sum(_shared(covered, other) for other in taken)
        if not overlap:
            return covered
        if best is None or overlap < best[0]:
            best = overlap, covered
    assert best is not None, "the innermost point is a place"
    return best[1]


def _places(region: DrawnRegion) -> Iterator[Point]:
    """Yield the innermost point, then points of a grid on the box."""
    yield region.shape.innermost()
    x1, y1, x2, y2 = region.box
    for row in range(5):
        for column in range(5):
            yield x1 + column / 4 * (x2 - x1), y1 + row / 4 * (y2 - y1)


def _draw_badge(image: Image.Image, number: int, place: Box, cell: int, color: str) -> None:
    left, top, right, bottom = (int(v) for v in place)
    pen = ImageDraw.Draw(image)
    pen.rectangle((left, top, right - 1, bottom - 1), fill=color, outline=ink_on(color))
    x = left + _PADDING * cell
    for digit in str(number):
        for row, bits in enumerate(_DIGITS[int(digit)]):
            for column in range(5):
                if bits >> (4 - column) & 1:
                    corner = x + column * cell, top + (_PADDING + row) * cell
                    pen.rectangle(
                        (*corner, corner[0] + cell - 1, corner[1] + cell - 1), fill=ink_on(color)
                    )
        x += _CELLS_WIDE * cell


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(first: Box, second: Box) -> float:
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    return across * down if across > 0 and down > 0 else 0.0
