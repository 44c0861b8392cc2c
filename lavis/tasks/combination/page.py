"""The page of several critics: how far they agree, and the rows on which they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lavis.tasks.combination.joining import SharedRows
from lavis.tasks.filtering.report import split_text
from lavis.tasks.report import ReportImage, render, report_image, scored_row

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset

TEMPLATE = "critics.html.jinja"


@dataclass(frozen=True)
class DisputedRow:
    """One row as the page shows it.

    Attributes:
        row: its number in the data set.
        image: with its drawn regions; None if there is none to read.
        parts: (name, text), see `split_text`.
        scores: (critic, score, kept).
        label: 1 accept, 0 reject, None without label.
        details: short facts.
    """

    row: int
    image: ReportImage | None
    parts: list[tuple[str, str]]
    scores: list[tuple[str, float, bool]]
    label: int | None
    details: list[str]


def make_row(
    payload: Mapping[str, Any],
    names: Sequence[str],
    threshold: float,
    dataset: RecordDataset | None = None,
) -> DisputedRow:
    """Lay one row out for the page.

    Args:
        payload: of `CombinedRows`.
        names: of the critics.
        dataset: has the image.
    """
    scores = {name: payload[f"score_{name}"] for name in names} | {"combined": payload["score"]}
    index, label = payload["index"], payload.get("label")
    image = None if dataset is None else report_image(dataset, scored_row(dataset, index))
    instance = payload.get("instance")
    return DisputedRow(
        row=index,
        image=image,
        parts=split_text(payload["text"]),
        scores=[(name, score, score >= threshold) for name, score in scores.items()],
        label=label if label in (0, 1) else None,
        details=[f"row {index}", *([] if instance is None else [str(instance)])],
    )


def render_critics(
    summary: Mapping[str, Any],
    examples: Mapping[str, Sequence[DisputedRow]],
    rows: SharedRows,
    threshold: float,
) -> str:
    """Return the page.

    Args:
        summary: content of `critics.json`.
        examples: title -> rows.
        threshold: what `keeps` and `drops` refer to.
    """
    return render(
        TEMPLATE, summary=summary, examples=examples, names=rows.names, threshold=threshold
    )
