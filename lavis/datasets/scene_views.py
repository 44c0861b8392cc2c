"""Images of verbalized records as a vision-language model is shown them: views, and region words.

Views stand in the order of the prompt: the whole image, then a crop of each region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lavis.common.errors import RecordError, finite, record_errors
from lavis.datasets.files.images import ImageRoot, decode_image
from lavis.datasets.lck.record import check_inside, make_region
from lavis.datasets.lck.scenes import region_entries
from lavis.processors.region import DrawnRegion
from lavis.processors.views import crop_views
from lavis.processors.vlm import Shows, VlmImage

_MAX_FILE_PIXELS = 100_000_000  # a larger image is refused undecoded


@dataclass(frozen=True, slots=True)
class SceneView:
    """What is shown of one image.

    Attributes:
        images: RGB, one or more.
        words: region id -> where the images show it; without a region that they do not set apart.
    """

    images: tuple[Image.Image, ...]
    words: Mapping[int, str] = field(default_factory=dict)


class SceneViewer:
    """Opens images and shows them.

    Args:
        root: folder of the images.
        shows: how the whole image, and so the crops, show regions: `drawn` in colours, `marks` with
            their numbers too, `coordinates` as text of `convention`, `plain` not at all.
        convention: see `lavis.processors.vlm.VlmImage`.
        max_pixels: width times height that a larger image is made smaller to, before drawing.
        whole, crops: which views there are.

    Raises:
        ConfigError: a convention that is not known, or goes with another `shows`.

    Example:
        >>> viewer = SceneViewer(ImageRoot("images"), shows="marks", crops=True)
        >>> viewer.view({"image": "a.png", "region_locations": [{"boxes": [[0, 0, 9, 9]]}]}, [0])
    """

    def __init__(
        self,
        root: ImageRoot,
        *,
        shows: Shows = "drawn",
        convention: str | None = None,
        max_pixels: int | None = None,
        whole: bool = True,
        crops: bool = False,
    ) -> None:
        self.root = root
        self._processor = VlmImage(shows, convention, max_pixels=max_pixels)
        self._whole, self._crops = whole, crops
        self._last: tuple[list[Any], Image.Image] | None = None  # and the file's state

    def describe(self) -> dict[str, Any]:
        """Return what views depend on beside images and records, JSON-able."""
        return {**self._processor.describe(), "whole": self._whole, "crops": self._crops}

    def view(self, record: Mapping[str, Any], ids: Sequence[int]) -> SceneView:
        """Return the views of a record's image with the regions of `ids`, numbered by their ids.

        Raises:
            RecordError: the image is missing, broken, or not the one that the record's boxes are
                of; a region cannot be shown.
        """
        image = self._open(record)
        regions = _drawn(record, ids, image.size)
        with record_errors("regions that cannot be drawn"):
            (view,), words = self._processor.show(image, regions, palette="distinct", width="auto")
        images = [view] if self._whole else []
        named = dict(zip(ids, words, strict=True)) if self._processor.shows != "plain" else {}
        if self._crops:
            fitted = [region.resized(image.size, view.size) for region in regions]
            first = len(images) + 1
            images += crop_views(view, fitted)
            named = {
                number: _with_crop(named.get(number, ""), first + place, self._whole)
                for place, number in enumerate(ids)
            }
        return SceneView(tuple(images), named)

    def _open(self, record: Mapping[str, Any]) -> Image.Image:
        """Return a record's image, kept for the next prompt about it as long as its file stays."""
        file = self.root.find(record.get("image"))
        if self._last is None or self._last[0] != file.identity():
            self._last = file.identity(), decode_image(file, _MAX_FILE_PIXELS)
        image = self._last[1]
        sides = finite(record.get("width")), finite(record.get("height"))
        if None not in sides and sides != image.size:
            told = " x ".join(f"{side:g}" for side in sides)
            raise RecordError(
                f"another image: {file.name} has {image.width} x {image.height} pixels, not {told} "
                "as its record says"
            )
        return image


def _drawn(
    record: Mapping[str, Any], ids: Sequence[int], size: tuple[int, int]
) -> list[DrawnRegion]:
    entries = region_entries(record)
    regions = [make_region(number, entries[number]) for number in ids]
    check_inside(regions, size)
    return [DrawnRegion(region.region_id, region.box, mask=region.mask) for region in regions]


def _with_crop(words: str, number: int, whole: bool) -> str:
    if not whole:
        return f"in image {number}" + (f", {words}" if words else "")
    return f"{words}, shown larger in image {number}" if words else f"shown in image {number}"
