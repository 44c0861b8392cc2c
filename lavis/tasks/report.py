"""One HTML page that shows what was scored: figures, tables, and examples with their images.

The page needs no other file: charts and images are inside it as data URIs.
"""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.errors import RecordError
from lavis.common.pages import page_environment
from lavis.datasets.lck.marks import RegionMark, row_marks
from lavis.tasks.filtering.results import RowTable

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.rows import Row

TEMPLATE = "report.html.jinja"
IMAGE_WIDTH = 360  # pixels in the page; taller than wide images are bounded alike
JPEG_QUALITY = 82
_PARTS = re.compile(r"\b(answer|rationale):", re.IGNORECASE)


@dataclass(frozen=True)
class ReportImage:
    """An image as a page shows it.

    Attributes:
        uri: data URI of the image with its drawn regions.
        size: width and height in pixels before it was made small.
        marks: its drawn regions' numbers.
    """

    uri: str
    size: tuple[int, int]
    marks: tuple[RegionMark, ...] = ()


@dataclass(frozen=True)
class Example:
    """One row as the page shows it.

    Attributes:
        row: its number in the data set.
        image: with its drawn regions, or None where it cannot be read.
        parts: (name, text) of the text: question, answer, rationale, or the whole under no name.
        score: what the threshold is compared with.
        label: 1 accept, 0 reject, None without label.
        details: short facts, such as id, source and number of regions.
    """

    row: int
    image: ReportImage | None
    parts: list[tuple[str, str]]
    score: float
    kept: bool
    label: int | None
    details: list[str]


def choose_examples(table: RowTable, threshold: float, count: int) -> dict[str, list[int]]:
    """Return row numbers to show, by why they are shown; the same for the same scores.

    A quarter each of the highest, those nearest to the threshold, the lowest, and a fixed random
    draw of what is left.
    """
    rows = table.scored()
    scores = table.final[rows].astype(np.float64)
    orders = {
        "Highest scores": np.argsort(-scores, kind="stable"),
        f"Nearest to {threshold:g}": np.argsort(np.abs(scores - threshold), kind="stable"),
        "Lowest scores": np.argsort(scores, kind="stable"),
        "Drawn at random": np.random.default_rng(0).permutation(len(rows)),
    }
    chosen: dict[str, list[int]] = {}
    used: set[int] = set()
    for number, (title, order) in enumerate(orders.items()):
        share = (count - len(used)) // (len(orders) - number)
        fresh = (int(rows[place]) for place in order)
        picked = list(itertools.islice((row for row in fresh if row not in used), share))
        used.update(picked)
        if picked:
            chosen[title] = picked
    return chosen


def scored_row(dataset: RecordDataset, index: int) -> Row:
    """Return a row that was scored; its image may be gone since."""
    try:
        return dataset.row(index)
    except RecordError:
        return dataset.names_only().row(index)


def report_image(dataset: RecordDataset, row: Row) -> ReportImage | None:
    """Return a row's image with its regions, or None where it cannot be read any more."""
    try:
        image = dataset.drawn_image(row)
        return ReportImage(image_uri(image), image.size, row_marks(dataset, row, image.size))
    except (RecordError, OSError):
        return None


def make_example(dataset: RecordDataset, table: RowTable, index: int, threshold: float) -> Example:
    """Read one row again and lay it out for the page."""
    row = scored_row(dataset, index)
    record = dataset.record(index)
    score = float(table.final[index])
    label = int(table.labels[index])
    regions = record.get("region")
    details = [f"row {index}"]
    details += [str(row.fields[key]) for key in ("instance",) if row.fields.get(key) is not None]
    details += [str(record[key]) for key in ("source", "kind") if record.get(key)]
    if isinstance(regions, list):
        details.append(f"{len(regions)} region{'' if len(regions) == 1 else 's'}")
    return Example(
        row=index,
        image=report_image(dataset, row),
        parts=split_text(row.text),
        score=score,
        kept=score >= threshold,
        label=label if label >= 0 else None,
        details=details,
    )


def split_text(text: str) -> list[tuple[str, str]]:
    """Split `<question> Answer: <answer> Rationale: <rationale>` into named parts."""
    pieces = _PARTS.split(text)
    if len(pieces) == 1:
        return [("", text.strip())]
    parts = [("question", pieces[0].strip())]
    parts += [
        (name.lower(), body.strip()) for name, body in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    return parts


def render_report(
    summary: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    charts: Mapping[str, bytes],
    threshold: float,
) -> str:
    """Return the page.

    Args:
        summary: content of `summary.json`.
        examples: title -> rows.
        charts: title -> PNG bytes.
        threshold: the one that `kept` and `dropped` of the examples refer to.
    """
    return (
        report_environment()
        .get_template(TEMPLATE)
        .render(
            summary=summary,
            examples=examples,
            charts={title: _uri("image/png", data) for title, data in charts.items()},
            threshold=threshold,
            groups={
                "source": summary.get("by_source"),
                "number of regions": summary.get("by_regions"),
                "kind": summary.get("by_kind"),
            },
        )
    )


def report_environment() -> Any:
    """Return the jinja2 environment of all reports."""
    environment = page_environment(Path(__file__).parent / "templates")
    environment.filters.update(number=_number, percent=_percent)
    return environment


def image_uri(image: Any) -> str:
    """Return an image as a small JPEG inside a data URI."""
    image = image.convert("RGB")
    image.thumbnail((IMAGE_WIDTH, IMAGE_WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return _uri("image/jpeg", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.0"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
