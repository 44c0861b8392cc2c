"""From a record's region ids to the drawn regions and their tags in the text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lavis.common.errors import DataError, RecordError
from lavis.datasets.base import RecordDataset
from lavis.datasets.config import RegionOptions
from lavis.datasets.files.formats import open_file
from lavis.datasets.files.images import ImageFile, image_size
from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.mapping import RegionMapping
from lavis.datasets.lck.record import (
    Region,
    make_region,
    read_boxes_size,
    read_references,
    scale_region,
)
from lavis.datasets.rows import Drawing
from lavis.processors.region import DrawnRegion, RegionTag


class RegionDataset(RecordDataset):
    """Records whose text names regions of their image."""

    config: RegionOptions

    def __init__(self, config: RegionOptions, split: str, *, name: str) -> None:
        super().__init__(config, split, name=name)
        self.palette = config.palette
        self.line_width = config.line_width
        mapping = config.source(split).region_mapping
        self.mapping = open_mapping(mapping, config.cache_dir) if mapping else None

    def _options(self) -> dict[str, Any]:
        mapping = self.mapping.file.identity() if self.mapping else None
        return {**super()._options(), "region_mapping": mapping}

    def image_file(self, index: int, record: Mapping[str, Any]) -> ImageFile:
        """Return the image stored with the row, else the file its `image` names.

        Raises:
            RecordError: none, outside the root, or not there.
        """
        stored = self.store.image(index)
        if stored is not None:
            return stored
        if "image" not in record:
            raise RecordError("missing field: image")
        return self.images.find(record["image"])

    def find_regions(self, record: Mapping[str, Any], ids: Sequence[int]) -> list[Region]:
        """Return regions in order of `ids`; raises `RecordError` for an unknown id or bad box."""
        if not ids:
            return []
        readers = [read_references, self._mapped]
        if self.config.region_source == "mapping_first":
            readers.reverse()
        first = readers[0](record)
        second = {} if all(i in first for i in ids) else readers[1](record)
        regions = []
        for region_id in ids:
            entry = first.get(region_id, second.get(region_id))
            if entry is None:
                raise RecordError(f"unknown region id: {region_id}")
            regions.append(make_region(region_id, entry))
        return regions

    def _mapped(self, record: Mapping[str, Any]) -> dict[int, Any]:
        image = record.get("image")
        return self.mapping.regions(image) if self.mapping and isinstance(image, str) else {}

    def draw(
        self, file: ImageFile, regions: Sequence[Region], record: Mapping[str, Any]
    ) -> Drawing:
        """Return the drawing of the first `max_regions` regions, coloured by their place.

        Boxes of a record that names the size they are meant for (`boxes_size`) are scaled to the
        size of the file.

        Raises:
            RecordError: such a size of another form, or an image that cannot be read.
        """
        size = read_boxes_size(record)
        if size is not None and regions:
            width, height = image_size(file, self.config.max_pixels)
            scales = width / size[0], height / size[1]
            regions = [scale_region(region, *scales) for region in regions]
        as_boxes = self.config.region_mode == "boxes"
        drawn = tuple(
            DrawnRegion(place, region.box)
            if as_boxes
            else DrawnRegion(place, region.box, region.polygons, region.mask)
            for place, region in enumerate(regions[: self.config.max_regions])
        )
        return Drawing(file, tuple(regions), drawn)

    def tags(self, regions: Sequence[Region]) -> dict[int, RegionTag]:
        """Return the tag of each region in the text: its number is its place in `regions`.

        A duplicate gets its last number; `undrawn_regions` sets the tags beyond `max_regions`.
        """
        limit = len(regions) if self.config.max_regions is None else self.config.max_regions
        tags: dict[int, RegionTag] = {}
        for place, region in enumerate(regions):
            text = None
            if place >= limit and self.config.undrawn_regions != "number":
                if region.region_id in tags:
                    continue  # it is drawn, under an earlier number
                text = region.object_name if self.config.undrawn_regions == "name" else ""
            tags[region.region_id] = RegionTag(
                place, region.object_name, region.description, text=text
            )
        return tags


def open_mapping(path: str, cache_dir: str | None = None) -> RegionMapping:
    """Return the mapping of a JSONL file (also `.gz`, `.zst`); raises `DataError` for any other."""
    files = open_file(os.path.expanduser(path), cache_dir)
    if len(files) != 1 or not isinstance(files[0], JsonLinesFile):
        raise DataError(f"{path}: a region mapping is one JSONL file")
    return RegionMapping(files[0])
