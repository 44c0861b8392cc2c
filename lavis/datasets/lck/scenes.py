"""One image with its regions: located, checked, decoded once, drawn, cropped and marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import Any, Literal

from PIL import Image
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, ExistingPath
from lavis.common.errors import RecordError, record_errors
from lavis.datasets.files.images import ImageRoot, decode_image, image_size
from lavis.datasets.lck.marks import RegionMark, region_marks
from lavis.datasets.lck.record import check_inside, index_entries, make_region
from lavis.datasets.lck.tokens import region_number
from lavis.processors.region import DrawnRegion, draw_regions, outline_width

NOTES = ("concepts", "captions", "narratives", "dynamic")  # kept from a mapping
_PAGE_PIXELS = 50_000_000
_PAGE_SIZE = 480  # at which an outline still has two pixels
RegionFormat = Literal["auto", "jsonl", "vcr", "vg", "coco"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScenesConfig:
    """Section `images` of a verbalization run.

    Without `regions`, every image of `root` is taken, without regions.

    Attributes:
        format: of `regions`; `auto` detects it.
        max_regions: most regions of an image (null: all).
        max_pixels: larger images are rejected undecoded.
        follow_symlinks: accept links that lead out of `root`.
    """

    root: ExistingPath  # folder that image names are relative to
    # A file, or a folder of VCR's metadata. `jsonl`: {"image", "boxes", "names"}, a region mapping
    # or LCK records; `vcr`: annotations or a folder of metadata; `vg`: objects.json,
    # attributes.json or region_descriptions.json; `coco`: instances json.
    regions: ExistingPath | None = None
    format: RegionFormat = "auto"
    box_format: Literal["xyxy", "xywh"] = "xyxy"  # of `boxes` in lines of one's own
    max_regions: PositiveInt | None = None
    order: Literal["given", "area"] = "given"  # which come first; area: the largest
    min_edge: NonNegativeFloat = 1.0  # pixels; thinner boxes are rejected
    limit: PositiveInt | None = None  # images
    check: Literal["header", "decode"] = "header"  # decode reads every pixel before any stage
    max_pixels: PositiveInt = 100_000_000
    follow_symlinks: bool = False


@plain_dataclass(slots=True)
class SceneRegion:
    """One region of an image.

    Attributes:
        region_id: its number in texts; on a page also selects the colour.
        box: x1, y1, x2, y2 in pixels of the image.
        name: the detector's guess, or empty.
    """

    region_id: int
    box: tuple[float, float, float, float]
    name: str = ""


def scene_regions(entries: Mapping[int, Any]) -> list[SceneRegion]:
    """Return the regions of a verbalized record's entries by id."""
    return [
        SceneRegion(number, tuple(entry["boxes"][0][:4]), str(entry.get("obj_guess") or ""))
        for number, entry in entries.items()
    ]


class Scene:
    """One image, its regions, and the texts about it so far.

    Args:
        record: a verbalized record; `region_locations` is a list, or a mapping where ids have gaps.
        max_pixels: larger images are rejected.
    """

    def __init__(self, record: Mapping[str, Any], root: ImageRoot, max_pixels: int) -> None:
        self.record = record
        self.image: str = record["image"]
        self._root, self._max_pixels = root, max_pixels
        self._pixels: Image.Image | None = None
        self.regions = scene_regions(region_entries(record))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.record["width"], self.record["height"]

    def read_image(self) -> Image.Image:
        """Return the RGB image; raises `RecordError` where it cannot be read."""
        if self._pixels is None:
            self._pixels = decode_image(self._root.find(self.image), self._max_pixels)
        return self._pixels

    def drawn(
        self, ids: Sequence[int], *, line_width: int | Literal["auto"], image_size: int
    ) -> Image.Image:
        """Return the image with the regions of `ids` drawn, coloured in that order."""
        image = self.read_image()
        width = outline_width(image.size, line_width, image_size)
        return draw_regions(image, _drawn(self._numbered(ids)), palette="distinct", width=width)

    def marks(self, ids: Sequence[int]) -> tuple[RegionMark, ...]:
        """Return where a page sets the numbers of the regions that `drawn` draws."""
        return _marks(self._numbered(ids), self.size)

    def _numbered(self, ids: Sequence[int]) -> list[SceneRegion]:
        by_id = {region.region_id: region for region in self.regions}
        return [replace(by_id[number], region_id=place) for place, number in enumerate(ids)]

    def crop(self, region: SceneRegion, margin: float) -> Image.Image:
        """Return the region with `margin` of its edges around it, inside the image."""
        image = self.read_image()
        x1, y1, x2, y2 = region.box
        across, down = margin * (x2 - x1), margin * (y2 - y1)
        left, top = max(0, int(x1 - across)), max(0, int(y1 - down))
        right = min(image.width, max(left + 1, round(x2 + across)))
        bottom = min(image.height, max(top + 1, round(y2 + down)))
        return image.crop((min(left, right - 1), min(top, bottom - 1), right, bottom))


def region_entries(record: Mapping[str, Any]) -> dict[int, Any]:
    """Return region id -> entry of a verbalized record."""
    return index_entries(record.get("region_locations"), "region_locations", named=False)


def locations(entries: Mapping[int, Mapping[str, Any]]) -> Any:
    """Return `region_locations` of entries by id: a list, or a mapping where ids have gaps."""
    if list(entries) == list(range(len(entries))):
        return list(entries.values())
    return {str(number): entry for number, entry in entries.items()}


def open_scene(
    source: Mapping[str, Any], root: ImageRoot, config: ScenesConfig
) -> tuple[dict[str, Any], list[str]]:
    """Return the first state of an image's verbalized record, and why regions were left out.

    Args:
        source: a line of `scene_sources`: `image`, `regions` and what a mapping said already.

    Raises:
        RecordError: the image cannot be used.
    """
    if "reject" in source:
        raise RecordError(source["reject"])
    file = root.find(source.get("image"))
    size = image_size(file, config.max_pixels)
    if config.check == "decode":
        decode_image(file, config.max_pixels).close()
    good: dict[int, dict[str, Any]] = {}
    bad: list[str] = []
    for number, entry in enumerate(source.get("regions", [])):
        try:
            with record_errors("bad region"):
                region_id = region_number(entry.get("name", number))
                good[region_id] = _checked(region_id, entry, size, config.min_edge)
        except RecordError as error:
            bad.append(error.reason)
    chosen = sorted(good)
    if config.order == "area":
        chosen = sorted(good, key=lambda n: (-_area(good[n]), n))
    chosen = sorted(chosen[: config.max_regions]) if source.get("keep_ids") else chosen
    numbered: dict[int, dict[str, Any]] = {}
    for place, number in enumerate(chosen[: config.max_regions]):
        new = number if source.get("keep_ids") else place
        numbered[new] = {**good[number], "name": str(new)}
    record = {
        "image": source["image"],
        "region_locations": locations(numbered),
        "width": size[0],
        "height": size[1],
    }
    return record | {key: source[key] for key in NOTES if key in source}, bad


def _checked(
    region_id: int, entry: Mapping[str, Any], size: tuple[int, int], min_edge: float
) -> dict[str, Any]:
    if "reject" in entry:
        raise RecordError(f"bad box: region {region_id} {entry['reject']}")
    region = make_region(region_id, entry)
    check_inside([region], size)
    x1, y1, x2, y2 = region.box
    if x2 - x1 < min_edge or y2 - y1 < min_edge:
        raise RecordError(f"bad box: region {region_id} is thinner than {min_edge:g} pixels")
    first = {"name": str(region_id), "boxes": entry["boxes"], "obj_guess": region.object_name}
    return first | {key: value for key, value in entry.items() if key not in first}


def _area(entry: Mapping[str, Any]) -> float:
    x1, y1, x2, y2 = entry["boxes"][0][:4]
    return (x2 - x1) * (y2 - y1)


@record_errors("regions that cannot be drawn")
def marked_image(
    root: ImageRoot, name: str, regions: Sequence[SceneRegion]
) -> tuple[Image.Image, tuple[RegionMark, ...]]:
    """Return an image, its regions drawn, and their marks; raises `RecordError` if unusable."""
    image = decode_image(root.find(name), _PAGE_PIXELS)
    width = outline_width(image.size, "auto", _PAGE_SIZE)
    drawn = draw_regions(image, _drawn(regions), palette="distinct", width=width)
    return drawn, _marks(regions, image.size)


@record_errors("regions that cannot be drawn")
def marks_without_image(regions: Sequence[SceneRegion]) -> tuple[RegionMark, ...]:
    """Return the marks of regions, where no image is shown; raises `RecordError` without a box."""
    return _marks(regions, (1, 1))


def _marks(regions: Sequence[SceneRegion], size: tuple[int, int]) -> tuple[RegionMark, ...]:
    names = [region.name for region in regions]
    return region_marks(_drawn(regions), size, palette="distinct", names=names)


def _drawn(regions: Sequence[SceneRegion]) -> list[DrawnRegion]:
    return [DrawnRegion(region.region_id, region.box) for region in regions]
