"""CLIP's own image processor: the aspect ratio is kept, the middle is cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.pixels import clip_pixels
from lavis.common.registry import processors
from lavis.processors.image import _ImageProcessor

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@processors.register("clip_image")
class ClipImage(_ImageProcessor):
    """Shortest edge to S (bicubic), centre crop S x S, [0, 1], normalise; nothing is random.

    Equal to transformers' Pillow processor of CLIP with its published settings at S = 224.
    """

    name: ClassVar[str] = "clip_image"
    default_size: ClassVar[int] = 224

    def __call__(self, image: Image.Image, **_: Any) -> Tensor:
        import torch

        size = self.image_size
        return torch.from_numpy(clip_pixels(image, size, size, self.mean, self.std))
