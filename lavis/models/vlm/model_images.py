"""What a processor has made of images, as images again: what the model sees of them.

Shapes: V images as a model sees them (tiles count one by one), L patches of p by p pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def model_images(vision: Mapping[str, Any], image_processor: Any) -> list[Tensor]:
    """Return V images, uint8 `(3, H, W)`, in the order and at the size of the model's input.

    Tiles that only pad a batch are left out.

    Args:
        vision: what a model takes of images, of the processor.
        image_processor: of transformers.

    Returns:
        Empty where the processor's output has another form than those known here: images and
        tiles `(..., 3, H, W)`, patches with `image_grid_thw` (Qwen, GLM), with
        `image_position_ids` (Gemma 4), or in squares (Molmo 2).
    """
    pixels = vision.get("pixel_values")
    if not isinstance(pixels, Tensor):
        return []
    pixels = pixels.detach().float().cpu()
    size = _patch_size(image_processor)
    if "image_grid_thw" in vision:
        images = _of_grids(pixels, vision["image_grid_thw"], image_processor, size)
    elif "image_position_ids" in vision:
        images = _of_places(pixels, vision["image_position_ids"], size)
    elif pixels.ndim >= 4 and pixels.shape[-3] == 3:
        tiles = pixels.reshape(-1, *pixels.shape[-3:])
        images = [tile for tile in tiles if tile.any()]  # zeros everywhere: no tile of an image
    else:
        images = _of_squares(pixels, size)
    return [_as_bytes(image, image_processor) for image in images]


def _of_grids(pixels: Tensor, grids: Tensor, processor: Any, size: int) -> list[Tensor]:
    """Read patches `(L, 3 * T * p * p)`, in blocks of m by m; of the T equal frames the first."""
    merge, frames = processor.merge_size, processor.temporal_patch_size
    images, first = [], 0
    for _, height, width in grids.tolist():
        part = pixels[first : first + height * width]
        first += height * width
        blocks = part.reshape(height // merge, width // merge, merge, merge, 3, frames, size, size)[
            :, :, :, :, :, 0
        ]  # (h, w, m, m, 3, p, p)
        rows = blocks.permute(4, 0, 2, 5, 1, 3, 6)
        images.append(rows.reshape(3, height * size, width * size))
    return images


def _of_places(pixels: Tensor, places: Tensor, size: int) -> list[Tensor]:
    """Read patches `(V, L, p * p * 3)` at `(V, L, 2)` columns and rows, -1 where none is."""
    images = []
    for patches, own in zip(pixels, places.cpu(), strict=True):
        real = (own >= 0).all(dim=1)
        width, height = (int(side) + 1 for side in own[real].amax(dim=0))
        images.append(_joined(patches[real], height, width, size))
    return images


def _of_squares(pixels: Tensor, size: int) -> list[Tensor]:
    """Read patches `(V, L, p * p * 3)` of square images; none if they are of another form."""
    if pixels.ndim != 3 or pixels.shape[-1] != 3 * size * size:
        return []
    side = math.isqrt(pixels.shape[1])
    if side * side != pixels.shape[1]:
        return []
    return [_joined(patches, side, side, size) for patches in pixels if patches.any()]


def _joined(patches: Tensor, height: int, width: int, size: int) -> Tensor:
    """Return `(3, H, W)` of patches `(h * w, p * p * 3)`, row by row."""
    grid = patches.reshape(height, width, size, size, 3)
    return grid.permute(4, 0, 2, 1, 3).reshape(3, height * size, width * size)


def _as_bytes(image: Tensor, processor: Any) -> Tensor:
    """Undo the processor's scaling of `(3, H, W)`."""
    if getattr(processor, "do_normalize", False):
        mean, std = (torch.tensor(getattr(processor, f"image_{n}")) for n in ("mean", "std"))
        image = image * std[:, None, None] + mean[:, None, None]
    if getattr(processor, "do_rescale", True):
        image = image / processor.rescale_factor
    return image.round().clamp(0, 255).to(torch.uint8)


def _patch_size(processor: Any) -> int:
    size = getattr(processor, "patch_size", 0)
    size = size if isinstance(size, int) else getattr(size, "height", 0)
    return size or 0
