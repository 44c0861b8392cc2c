"""Image processors of the BLIP family: PIL image to a normalised float tensor.

Shapes: S image size; an image becomes (3, S, S) float32. Boxes are x1, y1, x2, y2 in pixels.
All randomness comes from the `random.Random` handed in, never from global state.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.common.pixels import CLIP_MEAN, CLIP_STD
from lavis.common.registry import processors
from lavis.processors.augment import rand_augment, visible_share
from lavis.processors.base import BaseProcessor, check_count, check_number

if TYPE_CHECKING:
    from torch import Tensor

_TRIES = 10  # crops sampled before the whole (or centred) image is taken

Box = tuple[float, float, float, float]


class _ImageProcessor(BaseProcessor):
    """Options and the last step of every image processor.

    Args:
        image_size: S, the edge of the result in pixels (default: the class's `default_size`).
        mean, std: normalisation of each colour (default: CLIP's).
    """

    default_size: ClassVar[int] = 384

    def __init__(
        self,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.image_size = self.default_size if image_size is None else image_size
        check_count(self.name, "image_size", self.image_size)
        self.mean = [float(v) for v in (CLIP_MEAN if mean is None else mean)]
        self.std = [float(v) for v in (CLIP_STD if std is None else std)]
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(f"{self.name}.mean and .std need three numbers each, std above 0")

    def to_tensor(self, image: Image.Image) -> Tensor:
        """Scale an RGB image to [0, 1] and normalise; returns (3, S, S)."""
        import torch

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32)[:, None, None]
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def squash(self, image: Image.Image) -> Image.Image:
        """Resize to S x S with Pillow's bicubic filter; the aspect ratio is not kept."""
        size = (self.image_size, self.image_size)
        return image.resize(size, Image.Resampling.BICUBIC)


@processors.register("blip_image_eval")
class BlipImageEval(_ImageProcessor):
    """Squash-resize (bicubic), [0, 1], normalise."""

    name: ClassVar[str] = "blip_image_eval"

    def __call__(self, image: Image.Image, **_: Any) -> Tensor:
        return self.to_tensor(self.squash(image))


class _TrainProcessor(_ImageProcessor):
    """Random crop and flip, with the option to keep what the text names in view.

    Args:
        min_scale, max_scale: share of the image's area that a crop takes.
        hflip: mirror half of the images.
        swap_sides: mirror an image only with its texts, in which left and right change places; not
            where that is not sure (`lavis.common.regions.sides`).
        keep_regions: crop so that drawn regions stay in view.
        min_visible: share of a region's area that counts as in view.
    """

    deterministic: ClassVar[bool] = False

    def __init__(
        self,
        image_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_scale: float = 0.5,
        max_scale: float = 1.0,
        hflip: bool = True,
        swap_sides: bool = False,
        keep_regions: bool = False,
        min_visible: float = 0.9,
    ) -> None:
        super().__init__(image_size, mean, std)
        check_number(self.name, "min_scale", min_scale, low=0.01, high=1.0)
        check_number(self.name, "max_scale", max_scale, low=min_scale, high=1.0)
        check_number(self.name, "min_visible", min_visible, low=0.0, high=1.0)
        switches = {"hflip": hflip, "swap_sides": swap_sides, "keep_regions": keep_regions}
        for option, value in switches.items():
            if not isinstance(value, bool):
                raise ConfigError(f"{self.name}.{option} is {value!r}; use true or false")
        self.min_scale = min_scale
        self.max_scale = max_scale
        if swap_sides and not hflip:
            raise ConfigError(f"{self.name}.swap_sides: goes with hflip: true")
        self.hflip = hflip
        self.swap_sides = swap_sides
        self.keep_regions = keep_regions
        self.min_visible = min_visible

    def describe(self) -> dict[str, Any]:
        """See `BaseProcessor`; an option that is off leaves former descriptions as they are."""
        node = super().describe()
        return node if self.swap_sides else {k: v for k, v in node.items() if k != "swap_sides"}

    def crop_and_flip(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        rng: random.Random,
        mirror: bool | None = None,
    ) -> tuple[Image.Image, list[Box]]:
        """Return the S x S image and the boxes in its pixels.

        `mirror` is what the texts were made for; None draws it.

        With `keep_regions` a crop must leave `min_visible` of every box's area in view; after ten
        failed tries the whole image is taken.
        """
        window = self._sample_window(image.size, boxes if self.keep_regions else (), rng)
        image = self.squash(image.crop(window))
        boxes = [_into_window(box, window, self.image_size) for box in boxes]
        if mirror if mirror is not None else self.hflip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            size = self.image_size
            boxes = [(size - x2, y1, size - x1, y2) for x1, y1, x2, y2 in boxes]
        return image, list(boxes)

    def _sample_window(
        self, size: tuple[int, int], boxes: Sequence[Box], rng: random.Random
    ) -> tuple[int, int, int, int]:
        width, height = size
        inside = [_clipped(box, width, height) for box in boxes]
        for _ in range(_TRIES):
            area = width * height * rng.uniform(self.min_scale, self.max_scale)
            ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if not (0 < w <= width and 0 < h <= height):
                continue
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            window = (left, top, left + w, top + h)
            if all(visible_share(box, window) >= self.min_visible for box in inside):
                return window
        return (0, 0, width, height) if boxes else _centre(width, height)


@processors.register("blip_image_train")
class BlipImageTrain(_TrainProcessor):
    """Random crop, flip, RandAugment (2 of 10 operations at level 5), normalise.

    Released behaviour by default. For images with drawn regions use `keep_regions: true` and
    `hflip: false` or `swap_sides: true`: else a crop may lose a region that the text names, and a
    flip swaps left and right without the text.
    """

    name: ClassVar[str] = "blip_image_train"

    def __call__(
        self,
        image: Image.Image,
        *,
        rng: random.Random | None = None,
        boxes: Sequence[Box] = (),
        mirror: bool | None = None,
    ) -> Tensor:
        rng = rng or random.Random(0)
        image, boxes = self.crop_and_flip(image, boxes, rng, mirror)
        size = self.image_size
        kept = [_clipped(box, size, size) for box in boxes] if self.keep_regions else []
        return self.to_tensor(rand_augment(image, rng, keep=kept, min_visible=self.min_visible))


@processors.register("blip2_image_train")
class Blip2ImageTrain(_TrainProcessor):
    """Random crop and flip, normalise; options as in `blip_image_train`."""

    name: ClassVar[str] = "blip2_image_train"
    default_size: ClassVar[int] = 364

    def __call__(
        self,
        image: Image.Image,
        *,
        rng: random.Random | None = None,
        boxes: Sequence[Box] = (),
        mirror: bool | None = None,
    ) -> Tensor:
        image, _ = self.crop_and_flip(image, boxes, rng or random.Random(0), mirror)
        return self.to_tensor(image)


def _clipped(box: Box, width: int, height: int) -> Box:
    x1, y1, x2, y2 = box
    return max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)


def _into_window(box: Box, window: tuple[int, int, int, int], size: int) -> Box:
    """Return a box of the full image in pixels of the crop, resized to `size`."""
    sx, sy = size / (window[2] - window[0]), size / (window[3] - window[1])
    x1, y1, x2, y2 = box
    return (
        (x1 - window[0]) * sx,
        (y1 - window[1]) * sy,
        (x2 - window[0]) * sx,
        (y2 - window[1]) * sy,
    )


def _centre(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the largest centred window with an aspect ratio from 3/4 to 4/3."""
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
