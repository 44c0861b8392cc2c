"""One image with its regions: checked, decoded once, drawn and cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from PIL import Image

from lavis.common.errors import RecordError, record_errors
from lavis.datasets.files.images import ImageRoot, decode_image, image_size
from lavis.datasets.lck.marks import RegionMark, region_marks
from lavis.datasets.lck.record import check_inside, index_entries, make_region, region_number
from lavis.datasets.lck.scenes_config import ScenesConfig
from lavis.processors.region import DrawnRegion, draw_regions, outline_width

_MAPPING_KEYS = ("concepts", "captions", "narratives", "dynamic")  # kept from a mapping


class SceneRegion:
    """One region of a scene; `box` is x1, y1, x2, y2 in pixels."""

    __slots__ = ("box", "name", "region_id")

    def __init__(self, region_id: int, box: tuple[float, float, float, float], name: str) -> None:
        self.region_id, self.box, self.name = region_id, box, name


class Scene:
    """One image, its regions, and what was said of it so far.

    Args:
        record: a verbalized record; `region_locations` is a list, or a mapping where ids have gaps.
        root: where its image is.
        max_pixels: larger images are refused.
    """

    def __init__(self, record: Mapping[str, Any], root: ImageRoot, max_pixels: int) -> None:
        self.record = record
        self.image: str = record["image"]
        self._root, self._max_pixels = root, max_pixels
        self._pixels: Image.Image | None = None
        self.regions = [
            SceneRegion(number, tuple(entry["boxes"][0][:4]), str(entry.get("obj_guess") or ""))
            for number, entry in region_entries(record).items()
        ]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.record["width"], self.record["height"]

    def read_image(self) -> Image.Image:
        """Return the RGB image.

        Raises:
            RecordError: it cannot be read.
        """
        if self._pixels is None:
            self._pixels = decode_image(self._root.find(self.image), self._max_pixels)
        return self._pixels

    def drawn(
        self, ids: Sequence[int], *, line_width: int | Literal["auto"], image_size: int
    ) -> Image.Image:
        """Return the image with the regions of `ids` drawn, coloured in that order."""
        image = self.read_image()
        width = outline_width(image.size, line_width, image_size)
        return draw_regions(image, self._drawing(ids), palette="distinct", width=width)

    def marks(self, ids: Sequence[int]) -> tuple[RegionMark, ...]:
        """Return where a page sets the numbers of the regions that `drawn` draws."""
        names = {region.region_id: region.name for region in self.regions}
        return region_marks(
            self._drawing(ids), self.size, palette="distinct", names=[names[n] for n in ids]
        )

    def _drawing(self, ids: Sequence[int]) -> list[DrawnRegion]:
        by_id = {region.region_id: region for region in self.regions}
        return [DrawnRegion(place, by_id[number].box) for place, number in enumerate(ids)]

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
        source: a line of `image_sources`: `image`, `regions` and what a mapping said already.

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
    return record | {key: source[key] for key in _MAPPING_KEYS if key in source}, bad


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
