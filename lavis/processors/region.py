"""Regions of an image: their colours, how they are drawn, and how a token list names them.

A region's text number and colour are both its place in the list of regions.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lavis.common.regions.rle import Rle
from lavis.common.regions.shapes import Shape
from lavis.common.regions.transforms import resize_mask, resize_shape

Color = tuple[int, int, int, int]
Palette = Literal["released", "distinct", "person_xyz"]

_TABLE: tuple[tuple[Color, Color], ...] = (
    ((255, 5, 205, 32), (5, 255, 55, 255)),
    ((255, 128, 0, 32), (153, 204, 255, 255)),
    ((134, 45, 45, 32), (204, 153, 255, 255)),
    ((255, 128, 0, 32), (245, 173, 66, 255)),
    ((134, 45, 45, 32), (245, 93, 66, 255)),
)
_PERSONS: tuple[tuple[Color, Color], ...] = (
    ((255, 5, 205, 60), (5, 255, 55, 255)),
    ((255, 128, 0, 78), (153, 204, 255, 255)),
    ((134, 45, 45, 125), (204, 153, 255, 255)),
)
_GOLDEN_ANGLE = (3 - math.sqrt(5)) / 2  # of a full turn: neighbours in number are far in hue
_MIN_WIDTH = 2  # pixels, the released outline


@dataclass(frozen=True, slots=True)
class DrawnRegion:
    """One region to draw.

    Attributes:
        color_id: place in the list of regions, from 0.
        box: x1, y1, x2, y2 in pixels of the full image; parts outside are clipped.
        polygons: lists of (x, y) points that form one outline together; drawn in place of the box.
        mask: of the full image; drawn in place of both.
    """

    color_id: int
    box: tuple[float, float, float, float]
    polygons: tuple[tuple[tuple[float, float], ...], ...] | None = None
    mask: Rle | None = None

    @property
    def shape(self) -> Shape:
        """What is drawn."""
        if self.mask is not None:
            return Shape.of_mask(self.mask)
        if self.polygons and any(self.polygons):
            return Shape.of_polygons(self.polygons)
        return Shape("box", self.box)

    def resized(self, size: tuple[int, int], new_size: tuple[int, int]) -> DrawnRegion:
        """Return the region of an image of `size` (width, height) in one of `new_size`."""
        box = resize_shape(Shape("box", self.box), size, new_size).box()
        polygons = None
        if self.polygons and any(self.polygons):
            polygons = resize_shape(Shape.of_polygons(self.polygons), size, new_size).parts()
        mask = resize_mask(self.mask, new_size) if self.mask else None
        return DrawnRegion(self.color_id, box, polygons, mask)


def region_colors(color_id: int, palette: Palette = "released") -> tuple[Color, Color]:
    """Return fill and outline RGBA of a region.

    Ids 0 to 4 come from a table. Above it, `released` gives nearly the same grey for all small
    ids; `distinct` steps round the colour circle instead. `person_xyz` is the older table of three.
    """
    if palette == "person_xyz":
        return _PERSONS[color_id]
    if color_id < len(_TABLE):
        return _TABLE[color_id]
    if palette == "distinct":
        step = color_id - len(_TABLE)
        hue = (0.475 + step * _GOLDEN_ANGLE) % 1
        rgb = colorsys.hls_to_rgb(hue, (0.3, 0.5, 0.62)[step % 3], 0.95)
    else:
        luminance = 0.4 + 0.6 * ((color_id % 1025) / 1025)
        rgb = colorsys.hls_to_rgb((color_id % 1024) / 1024, luminance, (color_id % 1023) / 1023)
    red, green, blue = (math.floor(part * 255) for part in rgb)
    return (red, green, blue, 32), (red, green, blue, 255)


def has_color(color_id: int, palette: Palette) -> bool:
    """Return whether a palette has a colour for a region; else it is not drawn."""
    return palette != "person_xyz" or color_id < len(_PERSONS)


def css_color(color_id: int, palette: Palette = "released") -> str:
    """Return a region's outline colour as `#rrggbb`, for marks beside the image."""
    red, green, blue, _ = region_colors(color_id, palette)[1]
    return f"#{red:02x}{green:02x}{blue:02x}"


def luminance(color: str) -> float:
    """Return the relative luminance of `#rrggbb`, 0 black to 1 white (WCAG 2.2, definitions)."""
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2, success criterion 1.4.3)."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(color: str) -> str:
    """Return black or white, whichever reads better on a colour.

    Its contrast is at least sqrt(21) = 4.58 on any colour, above the 4.5 that WCAG asks of text. A
    line of the same ink around the colour also sets it apart (3 and more) from white and from
    near-black pages.
    """
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, color))


def outline_width(size: tuple[int, int], line_width: int | Literal["auto"], image_size: int) -> int:
    """Return the outline's width in pixels of an image of `size` (width, height).

    `auto` keeps a line of at least two pixels after the image is squashed to
    `image_size` x `image_size`; a number is taken as it is (released: 2).
    """
    if line_width != "auto":
        return line_width
    return max(_MIN_WIDTH, math.ceil(_MIN_WIDTH * max(size) / image_size))


def draw_regions(
    image: Image.Image,
    regions: Iterable[DrawnRegion],
    *,
    palette: Palette = "released",
    width: int = _MIN_WIDTH,
) -> Image.Image:
    """Return a copy of an RGB image with regions drawn one after another.

    Each region is an overlay (fill alpha 32, opaque outline inside the region) composited on the
    result so far. Only the touched rectangle is composited: the rest of a full-size overlay is
    transparent, so the result equals full-size compositing.

    Example:
        >>> shown = draw_regions(image, [DrawnRegion(0, (10, 10, 80, 60))], palette="distinct")
    """
    image = image.copy()
    for region in regions:
        if not has_color(region.color_id, palette):
            continue
        fill, outline = region_colors(region.color_id, palette)
        if region.mask is not None:
            _draw_mask(image, region.mask, fill, outline, width)
        elif region.polygons is None:
            _draw_box(image, region.box, fill, outline, width)
        else:
            _draw_polygon(image, region.polygons, fill, outline, width)
    return image


def _draw_box(
    image: Image.Image, box: Sequence[float], fill: Color, outline: Color, width: int
) -> None:
    # Pillow truncates towards zero; doing it here keeps that under the shift of the origin.
    left, top, right, bottom = (int(v) for v in box)
    # A box thinner than its outline is drawn up to width - 1 pixels outside itself.
    touched = _clip((left - width, top - width, right + width + 1, bottom + width + 1), image.size)
    if touched is None:
        return
    x0, y0 = touched[:2]
    overlay = Image.new("RGBA", (touched[2] - x0, touched[3] - y0), (0, 0, 0, 0))
    corners = (left - x0, top - y0, right - x0, bottom - y0)
    ImageDraw.Draw(overlay).rectangle(corners, fill=fill, outline=outline, width=width)
    _composite(image, overlay, touched)


def _draw_polygon(
    image: Image.Image,
    polygons: Sequence[Sequence[Sequence[float]]],
    fill: Color,
    outline: Color,
    width: int,
) -> None:
    # Released: all parts of a mask are joined into one outline.
    points = [(float(x), float(y)) for part in polygons for x, y in part]
    if not points:
        return
    xs, ys = [x for x, _ in points], [y for _, y in points]
    margin = width + 1
    touched = _clip(
        (
            int(min(xs)) - margin,
            int(min(ys)) - margin,
            int(max(xs)) + margin + 1,
            int(max(ys)) + margin + 1,
        ),
        image.size,
    )
    if touched is None:
        return
    # Rasterised at full size: shifting the points would change the rounding of slanted edges.
    overlay = Image.new("RGBA", image.size, (0, 0, 0, 0))
    flat = [value for point in points for value in point]
    ImageDraw.Draw(overlay).polygon(flat, fill=fill, outline=outline, width=width)
    _composite(image, overlay.crop(touched), touched)


def _draw_mask(image: Image.Image, mask: Rle, fill: Color, outline: Color, width: int) -> None:
    """Draw a mask and, within it, its outline: pixels nearer than `width` to one outside."""
    inside = Image.fromarray(mask.to_mask().astype(np.uint8) * 255)
    if (touched := inside.getbbox()) is None:
        return
    inside = inside.crop(touched)
    # Pixels beyond the mask's box count as outside; the filter copies those at the edge.
    padded = Image.new("L", (inside.width + 2 * width, inside.height + 2 * width))
    padded.paste(inside, (width, width))
    core = padded.filter(ImageFilter.MinFilter(2 * width + 1))
    core = core.crop((width, width, width + inside.width, width + inside.height))
    overlay = Image.new("RGBA", inside.size, (0, 0, 0, 0))
    overlay.paste(outline, mask=inside)
    overlay.paste(fill, mask=core)
    _composite(image, overlay, touched)


def _clip(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], size[0]), min(box[3], size[1])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _composite(image: Image.Image, overlay: Image.Image, at: tuple[int, int, int, int]) -> None:
    below = image.crop(at).convert("RGBA")
    image.paste(Image.alpha_composite(below, overlay).convert("RGB"), at[:2])


@dataclass(frozen=True, slots=True)
class RegionTag:
    """What the text may say about one region.

    Attributes:
        index: its number in text and drawing; None numbers regions by first mention.
        object_name: the detector's guess, such as `person`.
        description: a phrase, such as `a woman in a blue coat`.
        text: written as it is, whatever the options; for a region that is not drawn.
    """

    index: int | None = None
    object_name: str = ""
    description: str = ""
    text: str | None = None


def tag_tokens(
    tokens: Sequence[Any],
    tags: dict[int, RegionTag],
    *,
    reorder_ids: bool = True,
    use_object_tags: bool = False,
    use_descriptions: bool = False,
    no_ids: bool = False,
) -> list[Any]:
    """Replace every list of region ids in a token list by the regions' tags.

    Args:
        tokens: words, and lists of region ids.
        tags: region id -> what is known about it. Ids outside it vanish and leave an empty word.
        reorder_ids: write `[index]`, or the place of the first mention where there is none;
            False writes the raw id.
        use_object_tags: write `name [index]`, or with `no_ids` only the name.
        use_descriptions: write the description only.

    Returns:
        The words; several ids in one list are joined with ` , `.

    Example:
        >>> tag_tokens(["a", "hat", "on", [3]], {3: RegionTag(0, "man")}, use_object_tags=True)
        ['a', 'hat', 'on', 'man [0]']
    """
    order: dict[int, int] = {}
    words: list[Any] = []
    for token in tokens:
        if not isinstance(token, (list, tuple)):
            words.append(token)
            continue
        parts = []
        for region_id in token:
            tag = tags.get(int(region_id))
            if tag is None:
                continue
            number = int(region_id)
            if reorder_ids:
                first_mention = order.setdefault(number, len(order))
                number = tag.index if tag.index is not None else first_mention
            if tag.text is not None:
                parts.append(tag.text)
            elif use_descriptions:
                parts.append(tag.description)
            elif use_object_tags:
                parts.append(tag.object_name if no_ids else f"{tag.object_name} [{number}]")
            else:
                parts.append(f"[{number}]")
        words.append(" , ".join(parts))
    return words


def tokens_to_text(tokens: Sequence[Any], tags: dict[int, RegionTag], **options: bool) -> str:
    """Return `tag_tokens(...)` joined with single blanks."""
    return " ".join(str(word) for word in tag_tokens(tokens, tags, **options))
