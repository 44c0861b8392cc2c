"""GPT-4V captions of COCO's images (LAION-220K), long or short."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from lavis.common.errors import DataError, RecordError
from lavis.common.registry import datasets
from lavis.datasets.captions.config import LaionCaptionsConfig
from lavis.datasets.captions.dataset import CaptionDataset
from lavis.datasets.files.arrow import TABLES, is_saved, open_tables
from lavis.datasets.files.folders import Skipped, list_folder
from lavis.datasets.files.hub import hub_files
from lavis.datasets.files.images import ImageFile
from lavis.datasets.files.json_values import text_of
from lavis.datasets.files.records import RecordStore

_HUB = "laion/220k-GPT4Vision-captions-from-LIVIS"
_FORMS = (*TABLES, ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json")


@datasets.register("laion_220")
class LaionCaptions(CaptionDataset):
    """Rows `url`, `caption`, `short_caption`; the image is the address's path under the root."""

    config_class: ClassVar[type[LaionCaptionsConfig]] = LaionCaptionsConfig
    config: LaionCaptionsConfig

    def __init__(self, config: LaionCaptionsConfig, split: str, *, name: str) -> None:
        super().__init__(config, split, name=name)
        if config.with_images and not config.image_root(split):
            raise DataError(
                f"datasets.{name}.build_info.images.storage: missing; give the folder that holds "
                "COCO's train2017 and val2017"
            )

    def _open_store(self) -> RecordStore:
        config = self.config
        config.check_source(self.name, self.split)
        paths = config.record_paths(self.split)
        if not paths and config.data_dir is not None:
            paths = self._record_files(os.path.expanduser(config.data_dir))
        if not paths:
            local = config.LOCAL_FILES
            paths = hub_files(_HUB, None, self.split, section=self.name, local=local)
        return open_tables(paths, cache_dir=config.cache_dir)

    def _record_files(self, path: str) -> list[str]:
        """Return the record files of `data_dir`."""
        if os.path.isfile(path):
            return [path]
        for folder in (path, os.path.join(path, self.split), os.path.join(path, "data")):
            if is_saved(folder):
                return [folder]
            skipped = Skipped()
            if os.path.isdir(folder) and (files := list_folder(folder, _FORMS, skipped).files):
                skipped.log(folder)
                return files
        raise DataError(f"{path}: no captions; it should hold {self.config.LOCAL_FILES}")

    def _caption(self, record: Mapping[str, Any]) -> str:
        return text_of(record, "short_caption" if self.config.short else "caption")

    def _image_file(self, record: Mapping[str, Any], stored: int) -> ImageFile:
        url = record.get("url")
        if not isinstance(url, str) or not url.strip():
            raise RecordError("missing field: url")
        try:
            path = unquote(urlsplit(url).path).lstrip("/")
        except ValueError:
            raise RecordError(f"malformed url: {url[:80]}") from None
        return self.images.find(path)

    def _fields(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {"instance": str(record.get("url"))}
