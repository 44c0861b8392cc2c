"""Shared parts of all tasks' HTML reports: images with their regions, a draw of rows, numbers.

A page needs no other file: charts and images are inside it as data URIs.
"""

from __future__ import annotations

import base64
import heapq
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis.common.errors import RecordError
from lavis.common.pages import page_environment

if TYPE_CHECKING:
    from PIL import Image

    from lavis.datasets.base import RecordDataset
    from lavis.datasets.lck.marks import RegionMark
    from lavis.datasets.rows import Row

IMAGE_WIDTH = 360  # pixels in the page; taller than wide images are bounded alike
JPEG_QUALITY = 82


@dataclass(frozen=True)
class ReportImage:
    """An image's data URI, its regions' numbers, and (width, height) in pixels before shrinking."""

    uri: str
    size: tuple[int, int]
    marks: tuple[RegionMark, ...] = ()


class ExampleRows:
    """A fixed random draw of rows of each kind, whatever order they come in, in bounded memory.

    Args:
        count: rows shown, shared evenly by the kinds.
        titles: kind -> title, in the order of the page.
        kind_of: names the kind of a payload.
    """

    def __init__(
        self, count: int, titles: Mapping[str, str], kind_of: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self._each = -(-count // len(titles))
        self._titles, self._kind_of = titles, kind_of
        self._kept: dict[str, list[tuple[float, int, dict[str, Any]]]] = {k: [] for k in titles}

    def offer(self, row: int, payload: dict[str, Any]) -> None:
        """Keep a row, or not."""
        if not self._each:
            return
        kept = self._kept[self._kind_of(payload)]
        entry = (random.Random(row).random(), row, payload)
        if len(kept) < self._each:
            heapq.heappush(kept, entry)
        elif entry[:2] > kept[0][:2]:
            heapq.heapreplace(kept, entry)

    def by_title(self) -> dict[str, list[dict[str, Any]]]:
        """Return title -> payloads with their `row`, in the order of the data set."""
        return {
            self._titles[kind]: [
                {"row": row, **payload}
                for _, row, payload in sorted(kept, key=lambda entry: entry[1])
            ]
            for kind, kept in self._kept.items()
            if kept
        }


def scored_row(dataset: RecordDataset, index: int) -> Row:
    """Return a row that was scored; its image may be gone since."""
    try:
        return dataset.row(index)
    except RecordError:
        return dataset.names_only().row(index)


def report_image(dataset: RecordDataset, row: Row) -> ReportImage | None:
    """Return a row's image with its regions, or None if it can no longer be read."""
    try:
        image = dataset.drawn_image(row)
        return ReportImage(image_uri(image), image.size, dataset.region_marks(row, image.size))
    except (RecordError, OSError):
        return None


def render(template: str, **values: Any) -> str:
    """Return a page made of a template in `templates/`."""
    environment = page_environment(Path(__file__).parent / "templates")
    environment.filters.update(number=_number, percent=_percent)
    page: str = environment.get_template(template).render(**values)
    return page


def image_uri(image: Image.Image) -> str:
    """Return an image as a small JPEG inside a data URI."""
    image = image.convert("RGB")
    image.thumbnail((IMAGE_WIDTH, IMAGE_WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return data_uri("image/jpeg", buffer.getvalue())


def data_uri(kind: str, data: bytes) -> str:
    """Return bytes of a media type as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.0"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
