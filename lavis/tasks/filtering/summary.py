"""Counts, statistics and metrics of a scored data set, overall and by property of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis.tasks.filtering.results import RowTable, kept_path
from lavis.tasks.metrics import (
    area_under_curve,
    classification_metrics,
    expected_calibration_error,
)

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MOST_SLICES = 200  # values of one property that get a line of their own, the largest first


def summarize(
    table: RowTable, name: str, thresholds: Sequence[float], *, with_metrics: bool = True
) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Returns:
        `rows`, `scored`, `rejected`, `rejected_by_reason`, `empty_rationale` (scored rows with an
        empty rationale), `score` (mean, std, quantiles), `kept` by threshold, `by_source`,
        `by_regions` and `by_kind` if records carry it; with labels also `metrics` and, in each
        slice, `accept_share`, `accuracy`, `auc`; where scores have bounds, `unsure`: rows whose
        bounds lie on both sides of a threshold.
    """
    scored = table.scored()
    labelled = table.labelled() if with_metrics else scored[:0]
    summary: dict[str, Any] = {
        "name": name,
        "rows": len(table.scores),
        "scored": len(scored),
        "rejected": len(table.scores) - len(scored),
        "rejected_by_reason": dict(sorted(table.reasons.items())),
        "empty_rationale": table.empty_rationales,
        "score": _statistics(table.final[scored]),
        "kept": {
            str(t): {
                "rows": table.kept[t],
                "share": table.kept[t] / len(scored) if len(scored) else None,
                "file": str(kept_path(Path(), name, t)),
            }
            for t in thresholds
            if t in table.kept
        },
    }
    if table.unsure is not None:
        summary["unsure"] = {str(t): table.unsure[t] for t in thresholds}
    for group, codes in table.groups.items():
        if slices := _slices(table, list(codes.items()), thresholds, with_metrics):
            summary[f"by_{group}"] = slices
    if len(labelled):
        summary["metrics"] = classification_metrics(
            table.final[labelled], table.labels[labelled], table.predictions[labelled], thresholds
        )
    return summary


def calibration_report(table: RowTable, calibrated: np.ndarray) -> dict[str, Any]:
    """Return the calibration error of raw and calibrated scores (by row) on labelled rows."""
    rows = table.labelled()
    labels = table.labels[rows]
    return {
        "labelled": len(rows),
        "ece_before": expected_calibration_error(table.scores[rows], labels),
        "ece_after": expected_calibration_error(calibrated[rows], labels),
    }


def _slices(
    table: RowTable,
    items: Sequence[tuple[Any, np.ndarray]],
    thresholds: Sequence[float],
    with_metrics: bool,
) -> dict[str, Any]:
    """Return value -> counts and metrics of the rows that have it."""
    largest = sorted(items, key=lambda item: -len(item[1]))[:MOST_SLICES]
    chosen = {value for value, _ in largest}
    slices = {
        str(value): _slice(table, rows, thresholds, with_metrics)
        for value, rows in items
        if value in chosen
    }
    others = [rows for value, rows in items if value not in chosen]
    if others:
        rows = np.concatenate(others)
        slices[f"{len(others)} others"] = _slice(table, rows, thresholds, with_metrics)
    return slices


def _slice(
    table: RowTable, rows: np.ndarray, thresholds: Sequence[float], with_metrics: bool
) -> dict[str, Any]:
    scores = table.final[rows].astype(np.float64)
    part: dict[str, Any] = {
        "rows": len(rows),
        "mean_score": float(scores.mean()),
        "kept": {str(t): int((scores >= t).sum()) for t in thresholds},
    }
    labelled = rows[table.labels[rows] >= 0] if with_metrics else rows[:0]
    if len(labelled):
        labels = table.labels[labelled]
        part["accept_share"] = float(np.mean(labels == 1))
        part["accuracy"] = float(np.mean(table.predictions[labelled] == labels))
        part["auc"] = area_under_curve(table.final[labelled], labels)
    return part


def _statistics(scores: np.ndarray) -> dict[str, Any] | None:
    if not len(scores):
        return None
    values = scores.astype(np.float64)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "quantiles": {
            str(q): float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
        },
    }
