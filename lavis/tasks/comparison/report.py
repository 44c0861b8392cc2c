"""The page of a comparison: figures beside chance, and images with their ranked candidates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lavis.tasks.report import render, report_image, scored_row

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset

TEMPLATE = "comparison.html.jinja"
TITLES = {
    "worse": "Wrong, or not better than chance",
    "better": "Right, or better than chance",
    "unknown": "Without a known answer",
}
METRIC_TITLES = {
    "accuracy": "accuracy: the right candidate ranks first",
    "circular": "accuracy in all rotations: right with every order of the options",
    "pairwise": "agreement with people's order of pairs, from -100 to 100",
    "recall": "recall: true candidates among as many best-ranked ones",
}
BASELINE_TITLES = {
    "position": "by position",
    "longest": "longest text",
    "shortest": "shortest text",
    "human": "people",
    "oracle": "mean of people",
}


def kind_of(payload: Mapping[str, Any]) -> str:
    """Return the kind of a row, a key of `TITLES`; `margins` hold its figures less chance."""
    margins = list(payload["margins"].values())
    if not margins:
        return "unknown"
    return "better" if margins[0] > 0 else "worse"


def render_page(
    summary: Mapping[str, Any],
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    dataset: RecordDataset,
) -> str:
    """Return the page, without images that can no longer be read."""
    parts = {"all": summary.get("metrics", {}), **summary.get("by_group", {})}
    used = {name for part in parts.values() for m in part.values() for name in m["baselines"]}
    return render(
        TEMPLATE,
        summary=summary,
        parts=parts,
        examples={
            title: [_example(row, dataset) for row in rows] for title, rows in examples.items()
        },
        metric_titles=METRIC_TITLES,
        baselines={name: title for name, title in BASELINE_TITLES.items() if name in used},
    )


def _example(payload: Mapping[str, Any], dataset: RecordDataset) -> dict[str, Any]:
    question, candidates = split_question(payload["texts"])
    scores = payload["match_scores"]
    low, high = min(scores), max(scores)
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return {
        "row": payload["row"],
        "instance": payload.get("instance"),
        "group": payload.get("group"),
        "image": report_image(dataset, scored_row(dataset, payload["row"])),
        "question": question,
        "candidates": [
            {
                "text": candidates[place],
                "score": scores[place],
                "share": (scores[place] - low) / (high - low) if high > low else 0.5,
                "chosen": place == payload["prediction"],
                "right": _is_right(payload, place),
                "ratings": _ratings(payload, place),
            }
            for place in order
        ],
    }


def split_question(texts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the texts' common start, up to the last label or word, and the rests."""
    if len(texts) < 2:
        return "", list(texts)
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    shared = "".join(column[0] for column in alike)
    label = shared.rfind(": ")
    cut = label + 2 if label >= 0 else shared.rfind(" ") + 1
    return texts[0][:cut].strip(), [text[cut:].strip() for text in texts]


def _is_right(payload: Mapping[str, Any], place: int) -> bool | None:
    if payload.get("label") is not None:
        return bool(payload["label"] == place)
    if payload.get("truths") is not None:
        return bool(payload["truths"][place])
    return None


def _ratings(payload: Mapping[str, Any], place: int) -> list[float]:
    scores = payload.get("scores")
    if not scores:
        return []
    raters = scores if isinstance(scores[0], list) else [scores]
    return [ratings[place] for ratings in raters]
