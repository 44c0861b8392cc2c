"""Region boxes by image, from a separate JSONL file: `{image, region_locations}` a line.

`region_locations` maps ids to entries, or is a list indexed by id; where it is missing the record
itself maps ids to entries. Only 32 bytes an image stay in memory.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from lavis.common.errors import RecordError
from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.record import index_entries, name_hash
from lavis.datasets.lck.tokens import region_number

logger = logging.getLogger(__name__)


class RegionMapping:
    """Entries of an image's regions, by the image's name.

    The file is scanned on first use. An image that comes twice keeps its last line; malformed
    lines are skipped with one warning.
    """

    def __init__(self, file: JsonLinesFile) -> None:
        self.file = file
        self._hashes: np.ndarray | None = None  # sorted
        self._rows: np.ndarray | None = None
        self._cached = functools.lru_cache(maxsize=1024)(self._look_up)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "hashes": self._hashes, "rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["file"])  # type: ignore[misc]
        self._hashes, self._rows = state["hashes"], state["rows"]

    def regions(self, image: str) -> dict[int, Any]:
        """Return region id -> entry; empty for an image that is not in the file."""
        return self._cached(image)

    def _look_up(self, image: str) -> dict[int, Any]:
        if self._hashes is None or self._rows is None:
            self._hashes, self._rows = self._scan()
        wanted = np.uint64(name_hash(image))
        first = int(np.searchsorted(self._hashes, wanted, side="left"))
        last = int(np.searchsorted(self._hashes, wanted, side="right"))
        for place in range(last - 1, first - 1, -1):  # equal hashes: the last line wins
            record = self.file.read(int(self._rows[place]))
            if record.get("image") != image:
                continue
            if "region_locations" in record:
                return index_entries(record["region_locations"], "region_locations", named=False)
            return {region_number(k): v for k, v in record.items() if k.isdecimal()}
        return {}

    def _scan(self) -> tuple[np.ndarray, np.ndarray]:
        hashes, bad = image_hashes(self.file, lambda record: record.get("image"))
        if bad:
            logger.warning("%s: %d lines without an image name, skipped", self.file.path, len(bad))
        rows = np.setdiff1d(np.arange(len(hashes)), list(bad))
        order = np.argsort(hashes[rows], kind="stable")
        return hashes[rows][order], rows[order]


def image_hashes(
    file: JsonLinesFile, name_of: Callable[[dict[str, Any]], Any]
) -> tuple[np.ndarray, dict[int, str]]:
    """Return the hash of each row's image name, uint64, and why rows have none.

    Args:
        name_of: returns the name in a record; anything but a text counts as missing.
    """
    hashes = np.zeros(len(file), dtype=np.uint64)
    bad: dict[int, str] = {}
    for row in range(len(file)):
        try:
            name = name_of(file.read(row))
            if not isinstance(name, str):
                raise RecordError("missing field: image")
        except RecordError as error:
            bad[row] = error.reason
            name = f"\0{row}"  # no image's name
        hashes[row] = name_hash(name)
    return hashes, bad
