"""The page of a filtered corpus: figures, tables, and examples with their images."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lavis.common.errors import RecordError
from lavis.tasks.report import (
    ReportImage,
    data_uri,
    image_uri,
    render,
    report_image,
    scored_row,
)

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset
    from lavis.tasks.filtering.results import RowTable

TEMPLATE = "report.html.jinja"
MOST_IMAGES = 24  # of a trace: models that tile see dozens
_PARTS = re.compile(r"\b(answer|rationale):", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """One row as the page shows it.

    Attributes:
        row: its number in the data set.
        image: with its drawn regions, or None if it cannot be read.
        parts: (name, text) of the text: question, answer, rationale, or the whole under no name.
        score: the one compared with the threshold.
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
    """Return row numbers to show, by the reason to show them; the same for the same scores.

    A quarter each of the highest, those nearest to the threshold, the lowest, and a fixed random
    draw of the rest.
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


def choose_traces(table: RowTable, count: int) -> list[int]:
    """Return row numbers spread evenly over the scores, from the lowest to the highest."""
    rows = table.scored()
    order = rows[np.argsort(table.scores[rows], kind="stable")]
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [int(row) for row in order[places]]


def trace_rows(
    model: Any, dataset: RecordDataset, table: RowTable, count: int
) -> list[dict[str, Any]]:
    """Return for some rows what `model.trace` tells, images as data URIs; none if it cannot.

    Rows whose files can no longer be read are left out.
    """
    if not hasattr(model, "trace"):
        return []
    traces = []
    for index in choose_traces(table, count):
        try:
            row = dataset.row(index)
            samples = dataset.collate([row], [dataset.image(row)], [0])  # type: ignore[list-item]
        except (RecordError, OSError):
            continue
        (trace,) = model.trace(samples)
        images = [
            (image_uri(Image.fromarray(view.permute(1, 2, 0).numpy())), tuple(view.shape[:0:-1]))
            for view in trace.get("images", [])[:MOST_IMAGES]
        ]
        more = max(0, len(trace.get("images", [])) - MOST_IMAGES)
        written = float(table.scores[index])
        traces.append({**trace, "row": index, "written": written, "images": images, "more": more})
    return traces


def make_example(dataset: RecordDataset, table: RowTable, index: int, threshold: float) -> Example:
    """Read one row again and lay it out for the page."""
    row = scored_row(dataset, index)
    record = dataset.record(index)
    score = float(table.final[index])
    label = int(table.labels[index])
    regions = record.get("region")
    details = [f"row {index}"]
    if row.fields.get("instance") is not None:
        details.append(str(row.fields["instance"]))
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
    question, *pieces = _PARTS.split(text)
    if not pieces:
        return [("", text.strip())]
    named = zip(pieces[::2], pieces[1::2], strict=True)
    return [("question", question.strip()), *((name.lower(), part.strip()) for name, part in named)]


def render_report(
    summary: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    charts: Mapping[str, bytes],
    threshold: float,
    traces: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page.

    Args:
        summary: content of `summary.json`.
        examples: title -> rows.
        charts: title -> PNG bytes.
        threshold: the one that `kept` and `dropped` of the examples refer to.
        traces: of `trace_rows`.
    """
    return render(
        TEMPLATE,
        summary=summary,
        examples=examples,
        charts={title: data_uri("image/png", data) for title, data in charts.items()},
        threshold=threshold,
        traces=traces,
        groups={
            "source": summary.get("by_source"),
            "number of regions": summary.get("by_regions"),
            "kind": summary.get("by_kind"),
        },
    )
