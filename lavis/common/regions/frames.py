"""The frame in which a family of models sees an image, and pixels there and back.

Families resize, stretch, pad, cut or tile. What matters to a region is where the original's pixels
lie in the picture that the model is shown, or that its tiles are cut from. Rules are those of the
image processors in transformers 5.24, pixel for pixel; sizes are width, height.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavis.common.errors import ConfigError, RecordError
from lavis.common.regions.shapes import Box, Point, Size

_LARGEST_ASPECT = 200  # Qwen's and GLM's processors refuse narrower images


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image becomes what a model sees.

    Attributes:
        original: its size.
        model: size of the picture that is shown, or cut into tiles.
        content: x1, y1, x2, y2 of the whole original in it: inside it where the picture is padded,
            beyond it where the original is cut; None: all of it.

    Example:
        >>> Frame((1280, 853), (1288, 840)).to_model((100.5, 40))
        (101.128125, 39.390386869871044)
    """

    original: Size
    model: Size
    content: tuple[int, int, int, int] | None = None

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where the whole original lies in the model's picture."""
        return self.content or (0, 0, *self.model)

    def to_model(self, point: Point) -> Point:
        """Return a point of the original in pixels of the model's picture."""
        x1, y1, x2, y2 = self.place
        return (
            x1 + point[0] * (x2 - x1) / self.original[0],
            y1 + point[1] * (y2 - y1) / self.original[1],
        )

    def to_original(self, point: Point) -> Point:
        """Return a point of the model's picture in pixels of the original; it may lie outside."""
        x1, y1, x2, y2 = self.place
        return (
            (point[0] - x1) * self.original[0] / (x2 - x1),
            (point[1] - y1) * self.original[1] / (y2 - y1),
        )

    def visible(self) -> Box:
        """Return the part of the original that the model sees, in pixels of the original."""
        left, top = self.to_original((0, 0))
        right, bottom = self.to_original(self.model)
        width, height = self.original
        return max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)


def smart_resize(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Qwen's rule: sides are multiples of a patch of tokens, area in bounds.

    Args:
        size: of the original.
        options: `patch_size`, `merge_size`; `size` with `shortest_edge` and `longest_edge`, which
            are the least and the largest *area*, or `min_pixels` and `max_pixels`.

    Raises:
        RecordError: an aspect ratio over 200.
    """
    width, height = size
    least, most = _areas(options)
    _check_aspect(size)
    factor = options["patch_size"] * options["merge_size"]
    sides = [round(side / factor) * factor for side in (width, height)]
    if sides[0] * sides[1] > most:
        beta = math.sqrt((height * width) / most)
        sides = [max(factor, math.floor(s / beta / factor) * factor) for s in (width, height)]
    elif sides[0] * sides[1] < least:
        beta = math.sqrt(least / (height * width))
        sides = [math.ceil(s * beta / factor) * factor for s in (width, height)]
    return Frame(size, (sides[0], sides[1]))


def glm_resize(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of GLM's rule: as Qwen's, for two frames of a film, so half of the area.

    Sides below a patch of tokens are first enlarged, both alike.
    """
    least, most = _areas(options)
    frames, factor = options["temporal_patch_size"], options["patch_size"] * options["merge_size"]
    width, height = size
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    _check_aspect((width, height))
    sides = [round(side / factor) * factor for side in (width, height)]
    if frames * sides[0] * sides[1] > most:
        beta = math.sqrt((frames * height * width) / most)
        sides = [max(factor, math.floor(s / beta / factor) * factor) for s in (width, height)]
    elif frames * sides[0] * sides[1] < least:
        beta = math.sqrt(least / (frames * height * width))
        sides = [math.ceil(s * beta / factor) * factor for s in (width, height)]
    return Frame(size, (sides[0], sides[1]))


def squash(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of a resize to a fixed `size`, whatever the aspect ratio."""
    return Frame(size, _fixed(options["size"]))


def crop_centre(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of CLIP's rule: shortest edge to `size`, then the middle is cut out.

    A fixed `size` of height and width, as Kosmos-2's `use_square_size` makes it, is squashed first.
    """
    edge = options["size"]
    if options.get("use_square_size"):
        edge = {side: edge.get("shortest_edge", edge.get("height")) for side in ("height", "width")}
    if edge.get("shortest_edge"):
        short, long = sorted(size)
        length = int(edge["shortest_edge"] * long / short)
        resized = (edge["shortest_edge"], length)
        resized = resized if size[0] <= size[1] else (length, edge["shortest_edge"])
    else:
        resized = _fixed(edge)
    if not options.get("do_center_crop", True):
        return Frame(size, resized)
    width, height = _fixed(options["crop_size"])
    left, top = (int((resized[0] - width) / 2), int((resized[1] - height) / 2))
    return Frame(size, (width, height), (-left, -top, resized[0] - left, resized[1] - top))


def gemma4_resize(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Gemma 4's rule: the largest within `max_soft_tokens`, sides floored.

    Small images grow.

    Raises:
        RecordError: an image too narrow for the budget.
    """
    width, height = size
    pooled = options["pooling_kernel_size"]
    side = pooled * options["patch_size"]
    budget = options["max_soft_tokens"] * side**2
    factor = math.sqrt(budget / (width * height))
    columns, rows = (math.floor(factor * length / side) for length in size)
    if not columns and not rows:
        raise RecordError(f"bad image size: {size} within {budget} pixels leaves none")
    longest = options["max_soft_tokens"]
    if not rows:
        columns, rows = min(width // height, longest), 1
    elif not columns:
        columns, rows = 1, min(height // width, longest)
    return Frame(size, (columns * side, rows * side))


def _areas(options: Mapping[str, Any]) -> tuple[int, int]:
    """Return the least and the largest area."""
    edges = options.get("size") or {}
    least = options.get("min_pixels") or edges.get("shortest_edge") or edges.get("min_pixels")
    most = options.get("max_pixels") or edges.get("longest_edge") or edges.get("max_pixels")
    if not least or not most:
        raise ConfigError(
            f"image processor: size is {edges}; shortest_edge and longest_edge (areas in pixels) "
            "are needed"
        )
    return least, most


def _fixed(value: Any) -> Size:
    """Return width and height of an option that is a number or names both."""
    if isinstance(value, int):
        return value, value
    return value["width"], value["height"]


def _check_aspect(size: Size) -> None:
    if max(size) / min(size) > _LARGEST_ASPECT:
        raise RecordError(
            f"bad image size: {size[0]} x {size[1]} is narrower than 1:{_LARGEST_ASPECT}, which "
            "this family refuses"
        )
