"""Visual Genome's region descriptions: a phrase, and the region of an image that it describes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lavis.common.errors import DataError, RecordError
from lavis.common.registry import datasets
from lavis.datasets.captions.config import CroppedVgConfig
from lavis.datasets.captions.dataset import Box, CaptionDataset, read_box
from lavis.datasets.captions.region_index import (
    find_published,
    region_index,
    region_index_of_tables,
)
from lavis.datasets.files.arrow import ArrowFile, open_table, tables_in
from lavis.datasets.files.hub import hub_files
from lavis.datasets.files.images import ImageFile, ImageRoot
from lavis.datasets.files.json_values import text_of
from lavis.datasets.files.records import RecordFile, RecordStore

_HUB = ("visual_genome", "region_descriptions_v1.2.0")
_FOLDERS = ("", "VG_100K", "VG_100K_2", "images")
_ENDINGS = (".jpg", ".png", ".jpeg", ".webp")
_BOX = ("x", "y", "width", "height")


class RegionFile(RecordFile):
    """Regions of one source, with the images of the tables they came from.

    Args:
        index: a row for each region.
        tables: whose rows a region's `picture` counts; none for the published JSON.
    """

    def __init__(self, index: ArrowFile, tables: Sequence[ArrowFile] = ()) -> None:
        super().__init__(index.path)
        self._index = index
        self._tables = RecordStore(tables)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, row: int) -> dict[str, Any]:
        """Return `image_id`, `region_id`, `x`, `y`, `width`, `height`, `phrase`, where known."""
        return self._index.read(row)

    def image(self, row: int) -> ImageFile | None:
        number = self._index.read(row).get("picture")
        return None if number is None else self._tables.image(number)

    def identity(self) -> dict[str, Any]:
        if not len(self._tables):
            return super().identity()
        return {"name": os.path.basename(self.path), "tables": self._tables.identity()}


@datasets.register("cropped_vg")
class CroppedVisualGenome(CaptionDataset):
    """One row per region: its phrase, and the image cut to its box."""

    config_class: ClassVar[type[CroppedVgConfig]] = CroppedVgConfig
    config: CroppedVgConfig

    def __init__(self, config: CroppedVgConfig, split: str, *, name: str) -> None:
        super().__init__(config, split, name=name)
        self.roots = [
            ImageRoot(folder, follow_symlinks=config.follow_symlinks)
            for folder in self._image_folders()
        ]

    def _open_store(self) -> RecordStore:
        config = self.config
        config.check_source(self.name, self.split)
        paths = config.record_paths(self.split)
        if not paths and config.data_dir is not None:
            paths = [os.path.expanduser(config.data_dir)]
        if paths:
            return RecordStore([self._open_source(path) for path in paths])
        files = hub_files(*_HUB, self.split, section=self.name, local=config.LOCAL_FILES)
        return RecordStore([self._regions_of(files)])

    def _open_source(self, path: str) -> RegionFile:
        if os.path.isfile(path):
            if path.lower().endswith((".json", ".json.gz", ".zip")):
                return RegionFile(region_index(path, self.config.cache_dir))
            return self._regions_of([path])
        published = find_published(path)
        if published is not None:
            return RegionFile(region_index(published, self.config.cache_dir))
        for folder in (path, os.path.join(path, self.split), os.path.join(path, "data")):
            if os.path.isdir(folder) and (files := tables_in(folder)):
                return self._regions_of(files)
        raise DataError(f"{path}: no region descriptions; it should hold {self.config.LOCAL_FILES}")

    def _regions_of(self, files: Sequence[str]) -> RegionFile:
        cache = self.config.cache_dir
        tables = [open_table(path, cache_dir=cache, image_key="image") for path in files]
        return RegionFile(region_index_of_tables(tables, cache), tables)

    def _image_folders(self) -> list[str]:
        config = self.config
        roots = [config.image_root(self.split), os.path.expanduser(config.data_dir or "")]
        folders = (os.path.join(root, name) for root in roots if root for name in _FOLDERS)
        return list(dict.fromkeys(os.path.normpath(f) for f in folders if os.path.isdir(f)))

    def _image_roots(self) -> list[ImageRoot]:
        return self.roots

    def _caption(self, record: Mapping[str, Any]) -> str:
        return text_of(record, "phrase")

    def _image_file(self, record: Mapping[str, Any], stored: int) -> ImageFile:
        file = self.store.image(stored)
        if file is not None:
            return file
        number = record.get("image_id")
        if number is None:
            raise RecordError("missing field: image_id")
        looked_for: list[str] = []
        for ending in _ENDINGS:
            for root in self.roots:
                try:
                    return root.find(f"{number}{ending}")
                except RecordError as error:
                    if not error.reason.startswith("missing image"):
                        raise
                    looked_for += error.paths
        folders = ", ".join(os.path.basename(root.root) for root in self.roots) or "(no folder)"
        raise RecordError(f"missing image: {number}.jpg in {folders}", paths=looked_for)

    def _box(self, record: Mapping[str, Any]) -> Box | None:
        box = read_box(record, _BOX, "xywh")
        if box is None:
            raise RecordError("missing field: x, y, width, height")
        return box

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {"instance": str(record.get("region_id")), "image": record.get("image_id")}
