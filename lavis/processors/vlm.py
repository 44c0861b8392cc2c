"""Images for vision-language models, which resize by themselves: views as pixels, regions as words.

Shapes: H and W are an image's own height and width.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.common.regions.conventions import Convention, convention, convention_of, to_model
from lavis.common.registry import processors
from lavis.processors.base import BaseProcessor, check_count
from lavis.processors.region import (
    DrawnRegion,
    Palette,
    draw_regions,
    has_color,
    outline_width,
    region_colors,
)
from lavis.processors.views import crop_views, cut_out, mark_regions

if TYPE_CHECKING:
    from torch import Tensor

Shows = Literal["drawn", "marks", "crops", "mask", "coordinates", "plain"]
_AUTO_SIZE = 480  # pixels of a longer side, at which an `auto` outline still has two
_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
_STARTS = (0, 20, 45, 70, 165, 200, 260, 295, 345)  # degrees of a colour circle; then red again


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
        shows: how. `drawn`: as for the critic; `marks`: drawn, with their numbers on them; `crops`:
            drawn, and a crop of three times the sides of each; `mask`: the image, and each region
            alone on white; `coordinates`: as text of `convention`; `plain`: not at all.
        convention: of `coordinates`: a name of `lavis/configs/vlm/conventions.yaml`, either of a
            convention (`unit`, `per_mille_json`) or of a model's type (`qwen2_5_vl`).
        image_processor: what the model's `preprocessor_config.json` says, with a model's type;
            without it settings are those of its class.
        max_pixels: larger images are first made smaller, width times height up to this.
    """

    name: ClassVar[str] = "vlm_image"
    keeps_image: ClassVar[bool] = True

    def __init__(
        self,
        shows: Shows = "drawn",
        convention: str | None = None,
        image_processor: Mapping[str, Any] | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if shows not in get_args(Shows):
            known = ", ".join(get_args(Shows))
            raise ConfigError(f"vlm_image.shows is {shows!r}; use one of {known}")
        if max_pixels is not None:
            check_count(self.name, "max_pixels", max_pixels)
        self.shows = shows
        self.max_pixels = max_pixels
        self._convention = _convention(shows, convention, image_processor)
        # The whole of it: what a model is told depends on every field.
        self.convention = self._convention.describe() if self._convention else None

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

        Raises:
            RecordError: a region has no text in the convention.
        """
        views, words = self.show(image, regions, palette=palette, width=width)
        return ShownImage(tuple(pixels(view) for view in views), tuple(words))

    def show(
        self,
        image: Image.Image,
        regions: Sequence[DrawnRegion],
        *,
        palette: Palette = "released",
        width: int | Literal["auto"] = 2,
    ) -> tuple[list[Image.Image], list[str]]:
        """Return the views as images, and the regions' words; see `__call__`."""
        size = _fitting(image.size, self.max_pixels)
        if size != image.size:
            regions = [region.resized(image.size, size) for region in regions]
            image = image.resize(size, Image.Resampling.BICUBIC)
        width = outline_width(size, width, _AUTO_SIZE)
        if self.shows == "drawn":
            views = [draw_regions(image, regions, palette=palette, width=width)]
            words = _drawn_words(regions, palette, size)
        elif self.shows == "marks":
            views = [mark_regions(image, regions, palette=palette, width=width)]
            words = [f"the region marked {region.color_id}" for region in regions]
        elif self.shows == "crops":
            drawn = draw_regions(image, regions, palette=palette, width=width)
            views = [drawn, *crop_views(drawn, regions)]
            words = [
                f"{outlined}, shown larger in image {number}"
                for number, outlined in enumerate(_drawn_words(regions, palette, size), 2)
            ]
        elif self.shows == "mask":
            views = [image, *(cut_out(image, region) for region in regions)]
            words = [f"what image {number} shows alone" for number in range(2, len(regions) + 2)]
        elif self._convention is not None:
            views = [image]
            words = to_model([region.shape for region in regions], size, self._convention)
        else:
            views, words = [image], [f"region {region.color_id}" for region in regions]
        return views, words


def pixels(image: Image.Image) -> Tensor:
    """Return an RGB image as `(3, H, W)` uint8."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def color_name(color: Sequence[int]) -> str:
    """Return a plain English name of a colour: `green`, `dark green`, `light grey`.

    Example:
        >>> color_name((5, 255, 55))
        'green'
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in color[:3]))
    if saturation < 0.2:
        if not 0.1 < lightness < 0.95:
            return "white" if lightness > 0.5 else "black"
        return "light grey" if lightness > 0.7 else "dark grey" if lightness < 0.35 else "grey"
    degrees = hue * 360
    place = sum(degrees >= start for start in _STARTS[1:])
    shade = "light " if lightness > 0.75 else "dark " if lightness < 0.35 else ""
    return shade + (_HUES[place] if place < len(_HUES) else "red")


def _drawn_words(
    regions: Sequence[DrawnRegion], palette: Palette, size: tuple[int, int]
) -> list[str]:
    """Return words for outlines: the colour's name, and the region's place where two share it."""
    words: list[str] = []
    for region in regions:
        if not has_color(region.color_id, palette):
            words.append(f"region {region.color_id}")
            continue
        kind = "box" if region.shape.kind == "box" else "area"
        outline = color_name(region_colors(region.color_id, palette)[1])
        words.append(f"the {kind} outlined in {outline}")
    shared = {text for text in words if words.count(text) > 1}
    for place, text in enumerate(words):
        if text in shared:
            x, y = (
                100 * centre / side
                for centre, side in zip(regions[place].shape.centre(), size, strict=True)
            )
            words[place] = f"{text} around {x:.0f}% of the width and {y:.0f}% of the height"
    return words


def _convention(
    shows: str, name: str | None, image_processor: Mapping[str, Any] | None
) -> Convention | None:
    """Return the convention of an option; raises `ConfigError` where it does not fit."""
    if shows != "coordinates":
        if name is not None or image_processor is not None:
            raise ConfigError(f"vlm_image.convention is of shows: coordinates, not of {shows}")
        return None
    if name is None:
        raise ConfigError(
            "vlm_image.convention: missing; write a model's type (qwen2_5_vl) or a convention "
            "(unit, per_mille_json)"
        )
    try:
        found = convention_of(name, image_processor or {})
    except ConfigError:
        found = convention(name)
        if image_processor is not None:
            raise ConfigError("vlm_image.image_processor goes with a model's type") from None
    if found.style is None:
        raise ConfigError(f"vlm_image.convention: {name} has no text for regions; use unit")
    return found


def _fitting(size: tuple[int, int], max_pixels: int | None) -> tuple[int, int]:
    """Return a size of at most so many pixels, the aspect ratio kept."""
    if max_pixels is None or size[0] * size[1] <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (size[0] * size[1]))
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))
