"""Images of pages that have no data set: regions drawn under their own numbers, and marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from lavis.common.errors import record_errors
from lavis.datasets.files.images import ImageRoot, decode_image
from lavis.datasets.lck.marks import RegionMark, region_marks
from lavis.processors.region import DrawnRegion, draw_regions, outline_width

_MAX_PIXELS = 50_000_000
_IMAGE_SIZE = 480  # at which an outline still has two pixels


@dataclass(frozen=True, slots=True)
class PageRegion:
    """A region of a page's image.

    Attributes:
        number: in the texts beside the image; also its colour's.
        box: x1, y1, x2, y2 in pixels of the image.
        name: the detector's guess, or empty.
    """

    number: int
    box: tuple[float, float, float, float]
    name: str = ""


@record_errors("regions that cannot be drawn")
def marked_image(
    root: ImageRoot, name: str, regions: Sequence[PageRegion]
) -> tuple[Image.Image, tuple[RegionMark, ...]]:
    """Return an image with its regions drawn, and their marks.

    Raises:
        RecordError: the image cannot be read, or a region not be drawn.
    """
    image = decode_image(root.find(name), _MAX_PIXELS)
    width = outline_width(image.size, "auto", _IMAGE_SIZE)
    drawn = draw_regions(image, _drawn(regions), palette="distinct", width=width)
    return drawn, _marks(regions, image.size)


@record_errors("regions that cannot be drawn")
def marks_without_image(regions: Sequence[PageRegion]) -> tuple[RegionMark, ...]:
    """Return the marks of regions for texts, where no image is shown.

    Raises:
        RecordError: a region has no box.
    """
    return _marks(regions, (1, 1))


def _marks(regions: Sequence[PageRegion], size: tuple[int, int]) -> tuple[RegionMark, ...]:
    names = [region.name for region in regions]
    return region_marks(_drawn(regions), size, palette="distinct", names=names)


def _drawn(regions: Sequence[PageRegion]) -> list[DrawnRegion]:
    return [DrawnRegion(region.number, region.box) for region in regions]
