"""Descriptors that are ready in a file of the user's: read, not made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lavis.common.errors import REFUSALS, ConfigError, DataError, brief
from lavis.common.registry import verbalizers
from lavis.common.storage.content import content_digest
from lavis.verbalizers.base import DescribedImage, Descriptors, Tools, Verbalizer
from lavis.verbalizers.config import SidecarConfig

GLOBAL_KEYS = ("concepts", "captions", "narratives", "dynamic")
REGION_KEYS = ("caption", "attributes")


@verbalizers.register("sidecar")
class SidecarReader(Verbalizer):
    """Descriptors of each image from a JSONL file; memory is about 120 bytes an image.

    A line is `{"image": ..., "captions": [...], "region_locations": [{"caption": ...}, ...]}` with
    any of the keys of a verbalized record; region entries are matched by place in the list, by
    `name` or by key. Attributes may be words or `{"text", "score"}`. An image's last line counts.
    """

    config_class: ClassVar[type] = SidecarConfig
    config: SidecarConfig

    def __init__(self, config: SidecarConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        self.path = _path(config)
        self._file = open(self.path, "rb")
        self._offsets: dict[bytes, int] = {}
        for offset, record in self._scan():
            self._offsets[_hash(record["image"])] = offset

    @classmethod
    def identity(cls, config: SidecarConfig) -> dict[str, Any]:
        return {"content": content_digest(_path(config))}

    def needs_image(self, scene: DescribedImage) -> bool:
        return False

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        return [self._descriptors(scene) for scene in scenes]

    def _descriptors(self, scene: DescribedImage) -> Descriptors:
        offset = self._offsets.get(_hash(scene.image))
        if offset is None:
            missing = f"no line in {self.path.name}"
            return {"failed": [missing]} if self.config.required else {}
        self._file.seek(offset)
        record = json.loads(self._file.readline())
        descriptors: Descriptors = {key: record[key] for key in GLOBAL_KEYS if key in record}
        regions = {
            region_id: {key: entry[key] for key in REGION_KEYS if key in entry}
            for region_id, entry in _entries(record.get("region_locations"))
        }
        if regions:
            descriptors["regions"] = regions
        return descriptors

    def _scan(self) -> Iterator[tuple[int, dict[str, Any]]]:
        offset = 0
        for number, line in enumerate(self._file, 1):
            if line.strip():
                yield offset, _checked(line, f"{self.path}, line {number}")
            offset += len(line)


def _path(config: SidecarConfig) -> Path:
    path = Path(os.path.expanduser(config.path))
    if not path.is_file():
        raise ConfigError(f"path: no such file: {config.path}")
    return path


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _entries(value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value or [])
    for key, entry in pairs:
        if entry is not None:
            yield str(entry.get("name", key)), entry


def _checked(line: bytes, where: str) -> dict[str, Any]:
    """Return a line's record, or raise `DataError` that says what is wrong with it."""
    try:
        record = json.loads(line)
    except REFUSALS as error:
        raise DataError(f"{where}: not JSON: {brief(error)}") from None
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        raise DataError(f'{where}: an object with a text "image" was expected')
    for key in ("captions", "narratives", "dynamic"):
        if not isinstance(record.get(key, []), list):
            raise DataError(f"{where}: {key} is no list")
    if not isinstance(record.get("concepts", {}), dict):
        raise DataError(f"{where}: concepts is no object of lists")
    try:
        entries = list(_entries(record.get("region_locations")))
        if not all(name.isdecimal() for name, _ in entries):
            raise ValueError("a region's name is its number")
        for _, entry in entries:
            if not isinstance(entry.get("attributes", []), list):
                raise ValueError("attributes is no list")
    except REFUSALS as error:
        raise DataError(f"{where}: region_locations: {brief(error)}") from None
    return record
