"""Frames of families that cut an image into tiles: the canvas, and where the image lies on it.

Each rule is that of a class of image processors in transformers 5.24. The small picture of the
whole that most families show besides is squashed: shares of the sides hold for it as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lavis.common.errors import RecordError
from lavis.common.regions.frames import Frame
from lavis.common.regions.shapes import Size

_LARGEST_EDGE = 4096  # pixels; Idefics3's limit


def nearest_grid(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of InternVL (GotOcr2): squashed to the grid of the nearest aspect ratio.

    Of equally near grids a larger one wins as long as the image fills half of it.
    """
    width, height = options["size"]["width"], options["size"]["height"]
    if not options["crop_to_patches"]:
        return Frame(size, (width, height))
    grids = [
        (columns, rows)
        for columns in range(1, options["max_patches"] + 1)
        for rows in range(1, options["max_patches"] + 1)
        if options["min_patches"] <= columns * rows <= options["max_patches"]
    ]
    grids.sort(key=lambda grid: grid[0] * grid[1])
    best, nearest = (1, 1), math.inf
    for grid in grids:
        distance = abs(size[0] / size[1] - grid[0] / grid[1])
        fills = size[0] * size[1] > 0.5 * height * width * grid[0] * grid[1]
        if distance < nearest or (distance == nearest and fills):
            best, nearest = grid, distance
    return Frame(size, (best[0] * width, best[1] * height))


def overlapping_crops(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Molmo 2: squashed to the canvas of its overlapping crops.

    The canvas is the one that needs the least enlarging, or else the least shrinking; scales are
    compared in 32 bits, as there.
    """
    patch, edge = options["patch_size"], options["size"]["height"]
    margin = sum(options["overlap_margins"]) * patch
    window = (edge // patch) * patch - margin
    most = options["max_crops"]
    tilings = [
        (rows, columns)
        for rows in range(1, most + 1)
        for columns in range(1, most + 1)
        if rows * columns <= most
    ]
    tilings.sort(key=lambda tiling: (tiling[0] * tiling[1], tiling[0]))
    sides = np.asarray([size[1] - margin, size[0] - margin], dtype=np.float32)
    with np.errstate(divide="ignore"):
        scales = ((np.asarray(tilings, np.int32) * window).astype(np.float32) / sides).min(axis=1)
    if (scales < 1).all():
        rows, columns = tilings[int(scales.argmax())]
    else:
        rows, columns = tilings[int(np.where(scales < 1, np.float32(10e9), scales).argmin())]
    return Frame(size, (columns * window + margin, rows * window + margin))


def longest_edge_tiles(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Idefics3 and SmolVLM: to the longest edge, then stretched to tiles."""
    tile = options["max_image_size"]["longest_edge"]
    if not options["do_image_splitting"]:
        return Frame(size, (tile, tile))
    unresized = options.get("do_resize") is False
    width, height = size if unresized else _to_longest_edge(size, options["size"])
    aspect = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / aspect) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * aspect) / tile) * tile
    return Frame(size, (width, height))


def _to_longest_edge(size: Size, edge: Mapping[str, int]) -> Size:
    if not edge.get("longest_edge"):
        return edge["width"], edge["height"]
    width, height = size
    aspect = width / height
    if width >= height:
        width = edge["longest_edge"]
        height = int(width / aspect)
        height += height % 2
    else:
        height = edge["longest_edge"]
        width = int(height * aspect)
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    aspect = width / height
    if width >= height and width > _LARGEST_EDGE:
        width, height = _LARGEST_EDGE, int(_LARGEST_EDGE / aspect)
    elif height > width and height > _LARGEST_EDGE:
        width, height = int(_LARGEST_EDGE * aspect), _LARGEST_EDGE
    return max(width, 1), max(height, 1)


def padded_pinpoints(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of LLaVA-OneVision: in the middle of the pinpoint that wastes the least."""
    tile = options["size"].get("height") or options["size"]["shortest_edge"]
    steps = range(1, 7)
    pinpoints = options["image_grid_pinpoints"] or [
        [r * tile, c * tile] for r in steps for c in steps
    ]
    best, most, least_waste = None, 0, math.inf
    for height, width in pinpoints:
        scale = min(width / size[0], height / size[1])
        used = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        waste = width * height - used
        if used > most or (used == most and waste < least_waste):
            best, most, least_waste = (width, height), used, waste
    if best is None:
        raise RecordError(f"bad image size: {size[0]} x {size[1]} fits no tiles of this family")
    scale_x, scale_y = best[0] / size[0], best[1] / size[1]
    if scale_x < scale_y:
        resized = best[0], min(math.ceil(size[1] * scale_x), best[1])
    else:
        resized = min(math.ceil(size[0] * scale_y), best[0]), best[1]
    left, top = (best[0] - resized[0]) // 2, (best[1] - resized[1]) // 2
    return Frame(size, best, (left, top, left + resized[0], top + resized[1]))


def padded_canvas(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Llama 4: at a canvas's top left, enlarged to a tile's edge at most."""
    tile, most = options["size"]["height"], options["max_patches"]
    canvases = _canvases(most, tile)  # (K, 2) rows and columns in pixels
    scales = np.asarray(canvases, np.float32) / np.asarray([size[1], size[0]], np.float32)
    scales = scales.min(axis=1)
    larger = scales[scales >= 1]
    if larger.size:
        chosen = larger.max() if options["resize_to_max_canvas"] else larger.min()
    else:
        chosen = scales.max()
    height, width = min(
        (canvas for canvas, scale in zip(canvases, scales, strict=True) if scale == chosen),
        key=lambda canvas: canvas[0] * canvas[1],
    )
    # The canvas is a tensor there, whose sides make scales of 32 bits; other limits are numbers.
    sides: list[Any] = [np.float32(width), np.float32(height)]
    if not options["resize_to_max_canvas"]:
        limits = [max(side, tile) for side in size]
        sides = [side if side < limit else limit for side, limit in zip(sides, limits, strict=True)]
    scale_w, scale_h = sides[0] / size[0], sides[1] / size[1]
    if scale_w < scale_h:
        resized = int(sides[0]), min(math.floor(size[1] * scale_w), int(sides[1]))
    else:
        resized = min(math.floor(size[0] * scale_h), int(sides[0])), int(sides[1])
    return Frame(size, (width, height), (0, 0, max(resized[0], 1), max(resized[1], 1)))


def _canvases(most: int, tile: int) -> list[tuple[int, int]]:
    """Return height and width of canvases of at most so many tiles, in Llama 4's order."""
    by_aspect: dict[float, list[tuple[int, int]]] = {}
    for count in range(most, 0, -1):
        for rows in (n for n in range(1, count + 1) if count % n == 0):
            by_aspect.setdefault(rows / (count // rows), []).append((rows, count // rows))
    return [(r * tile, c * tile) for grids in by_aspect.values() for r, c in grids]


def fitting_canvas(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Perception LM: squashed to a canvas that it fits on, or the nearest."""
    tile, most = options["tile_size"], options["max_num_tiles"]
    if options["vision_input_type"] != "thumb+tile" or most <= 1:
        return Frame(size, (tile, tile))
    grids = [(rows // tile, columns // tile) for rows, columns in _canvases(most, tile)]
    columns, rows = _largest_fit(size, grids, tile) or _nearest_aspect(size, grids)
    return Frame(size, (columns * tile, rows * tile))


def _largest_fit(size: Size, grids: list[tuple[int, int]], tile: int) -> tuple[int, int] | None:
    """Return the last grid on which the shorter edge becomes longest; None where all are too small.

    Args:
        grids: columns and rows.
    """
    aspect = size[0] / size[1]
    best: tuple[int, int] | None = None
    longest = 0.0
    for columns, rows in grids:
        if columns * tile < size[0] or rows * tile < size[1]:
            continue
        scale = min(columns * tile / size[0], rows * tile / size[1])
        if aspect > 1:
            edges = scale * size[0], float(math.floor(scale * size[0] / aspect))
        else:
            edges = float(math.floor(scale * size[1] * aspect)), scale * size[1]
        shorter = edges[0] if aspect < 1 else edges[1]
        if best is None or shorter >= longest:
            best, longest = (columns, rows), shorter
    return best


def _nearest_aspect(size: Size, grids: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the largest grid of the aspect ratio that is nearest, from the square's side."""
    aspect = size[0] / size[1]
    ratios = [columns / rows for columns, rows in grids]
    if aspect >= 1:
        nearest = min((r for r in ratios if r <= aspect), key=lambda r: abs(r - aspect))
        place = 0
    else:
        nearest = min((r for r in ratios if r > aspect), key=lambda r: abs(1 / r - 1 / aspect))
        place = 1
    same = [grid for grid, ratio in zip(grids, ratios, strict=True) if ratio == nearest]
    return max(same, key=lambda grid: grid[place])


def padded_grid(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of Phi-4 multimodal: at the top left of whole tiles.

    Raises:
        RecordError: an image that its processor calls very extreme.
    """
    tile, most = options["size"]["height"], options["dynamic_hd"]
    columns, rows = (math.ceil(side / float(tile)) for side in size)
    if columns * rows > most:
        square = {"height": tile, "width": tile}
        grid = nearest_grid(
            size, {"size": square, "crop_to_patches": True, "min_patches": 1, "max_patches": most}
        )
        columns, rows = (side // tile for side in grid.model)
    width, height = columns * tile, rows * tile
    scale_x, scale_y = width / size[0], height / size[1]
    if scale_x < scale_y:
        resized = width, int(size[1] * scale_x)
    else:
        resized = int(size[0] * scale_y), height
    if min(resized) < 10:
        raise RecordError(f"bad image size: {size[0]} x {size[1]} is too narrow for this family")
    return Frame(size, (width, height), (0, 0, *resized))


def refined_slices(size: Size, options: Mapping[str, Any]) -> Frame:
    """Return the frame of MiniCPM-V: squashed to its slices, or to one picture without any."""
    grid = _slices(size, options) if options["slice_mode"] else None
    if grid is None:
        return Frame(size, _to_resolution(size, options))
    columns, rows = grid
    each = (
        max(round(size[0] / columns) * columns, columns) / columns,
        max(round(size[1] / rows) * rows, rows) / rows,
    )
    width, height = _to_resolution(each, options)
    return Frame(size, (width * columns, height * rows))


def _slices(size: Size, options: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return columns and rows, or None for an image of one slice."""
    edge, most = options["scale_resolution"], options["max_slice_nums"]
    count = min(math.ceil(size[0] * size[1] / (edge * edge)), most)
    if count <= 1:
        return None
    aspect = math.log(size[0] / size[1])
    best, least = (1, 1), math.inf
    for slices in (count - 1, count, count + 1):
        if slices == 1 or slices > most:
            continue
        for rows in (n for n in range(1, slices + 1) if slices % n == 0):
            error = abs(aspect - math.log(slices // rows / rows))
            if error < least or (error == least and rows > best[1]):
                best, least = (slices // rows, rows), error
    return best


def _to_resolution(size: tuple[float, float], options: Mapping[str, Any]) -> Size:
    """Return a size of about the area of a slice, in whole patches of tokens."""
    height = int(options["scale_resolution"] / math.sqrt(size[0] / size[1]))
    width = int(height * (size[0] / size[1]))
    unit = options["patch_size"] * (2 if options["downsample_mode"] == "4x" else 4)
    rounded = [max(round(side / unit) * unit, unit) for side in (width, height)]
    return rounded[0], rounded[1]
