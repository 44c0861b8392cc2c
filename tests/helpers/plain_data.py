"""What data sets of tests share: rows of no file, so nothing to watch and nothing to mark."""

from __future__ import annotations

from typing import Any

from lavis.common.storage.inputs import Input, Watch


class PlainData:
    """Base of data sets whose rows and images are made on the spot."""

    has_images = reads_images = True

    def names_only(self) -> Any:
        return self

    def inputs(self, index: int) -> list[Input]:
        return []

    def watch(self, *, with_digests: bool) -> Watch:
        return Watch([], with_digests=with_digests)

    def region_marks(self, row: Any, size: tuple[int, int]) -> tuple[()]:
        return ()
