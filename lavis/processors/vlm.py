"""Images for vision-language models, which resize by themselves: views as pixels, regions as words.

Shapes: H and W are an image's own height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np

from lavis.common.errors import ConfigError
from lavis.common.registry import processors
from lavis.processors.base import BaseProcessor
from lavis.processors.region import DrawnRegion, Palette, draw_regions

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Shows = Literal["drawn", "plain"]


@dataclass(frozen=True, slots=True)
class ShownImage:
    """What a vision-language model is shown of one image.

    Attributes:
        views: one image or more, `(3, H, W)` uint8, in the order of the prompt.
        regions: words for each region, by its number in the text.
    """

    views: tuple[Tensor, ...]
    regions: tuple[str, ...] = ()


@processors.register("vlm_image")
class VlmImage(BaseProcessor):
    """Shows an image and its regions to a vision-language model, at full size.

    Args:
        shows: `drawn`, the regions drawn as for the critic; `plain`, the image alone.
    """

    name: ClassVar[str] = "vlm_image"
    keeps_image: ClassVar[bool] = True

    def __init__(self, shows: Shows = "drawn") -> None:
        if shows not in get_args(Shows):
            known = ", ".join(get_args(Shows))
            raise ConfigError(f"vlm_image.shows is {shows!r}; use one of {known}")
        self.shows = shows

    def __call__(
        self,
        image: Image.Image,
        *,
        regions: Sequence[DrawnRegion] = (),
        palette: Palette = "released",
        width: int = 2,
        **_: Any,
    ) -> ShownImage:
        """Return what is shown of an upright RGB image.

        Args:
            regions: those that the text names by number, in pixels of the image.
            palette, width: of the outlines.
        """
        words = tuple(f"[{region.color_id}]" for region in regions)
        if self.shows == "drawn":
            image = draw_regions(image, regions, palette=palette, width=width)
        return ShownImage((pixels(image),), words)


def pixels(image: Image.Image) -> Tensor:
    """Return an RGB image as `(3, H, W)` uint8."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
