"""PNG charts of a scored data set, drawn by matplotlib without a display."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

ACCEPT, REJECT, NEUTRAL, LINE = "#2a9d6f", "#d1603d", "#4878a8", "#444444"
BINS = 40
MARKERS, COLORS = "os^Dv", (ACCEPT, REJECT, LINE, "#8a5fb0")  # 20 pairs: 5 and 4 share no factor


def histogram_png(
    scores: np.ndarray, labels: np.ndarray | None, thresholds: Sequence[float]
) -> bytes:
    """Return a histogram of scores, stacked by label if there are labels.

    Args:
        scores: `(N,)` P(accept).
        labels: `(N,)` 1 accept, 0 reject; other values count as unlabelled.
        thresholds: drawn as vertical lines.
    """
    figure, axes = _axes()
    parts = [(scores, NEUTRAL, "scored")]
    if labels is not None:
        parts = [(scores[labels == 0], REJECT, "label: reject")]
        parts += [(scores[labels == 1], ACCEPT, "label: accept")]
        parts += [(scores[labels < 0], NEUTRAL, "no label")]
    parts = [part for part in parts if len(part[0])]
    base = np.zeros(BINS)
    edges = np.linspace(0, 1, BINS + 1)
    for values, color, name in parts:
        counts = np.histogram(values, bins=edges)[0]
        axes.bar(edges[:-1], counts, 1 / BINS, base, align="edge", color=color, label=name)
        base += counts
    for threshold in thresholds:
        axes.axvline(threshold, color=LINE, linewidth=1, linestyle="--")
    axes.set(xlabel="score P(accept)", ylabel="rows", xlim=(0, 1))
    if len(parts) > 1:
        axes.legend(frameon=False)
    return _png(figure)


def precision_recall_png(
    scores: np.ndarray, labels: np.ndarray, thresholds: Sequence[float]
) -> bytes:
    """Return the precision-recall curve with the run's thresholds marked on it."""
    return _png(precision_recall_figure(scores, labels, thresholds))


def precision_recall_figure(
    scores: np.ndarray, labels: np.ndarray, thresholds: Sequence[float]
) -> Any:
    """Return the curve as a matplotlib figure.

    Thresholds have different markers, named in the legend: those of a good critic lie so close
    together that texts beside them would overlap.
    """
    from sklearn.metrics import precision_recall_curve

    from lavis.tasks.metrics import at_threshold

    figure, axes = _axes()
    precision, recall, _ = precision_recall_curve(labels, scores)
    step = max(1, len(recall) // 2000)
    axes.plot(recall[::step], precision[::step], color=NEUTRAL, linewidth=2)
    styles = zip(itertools.cycle(MARKERS), itertools.cycle(COLORS), strict=True)
    for threshold, (marker, color) in zip(thresholds, styles, strict=False):
        rates = at_threshold(scores, labels, threshold)
        if rates["precision"] is not None and rates["recall"] is not None:
            name = f"at {threshold:g}: {rates['precision']:.3f}, {rates['recall']:.3f}"
            point = ([rates["recall"]], [rates["precision"]])
            axes.plot(*point, marker, color=color, markersize=7, mec="white", label=name)
    share = float(np.mean(labels == 1))
    axes.axhline(share, color=LINE, linewidth=1, linestyle=":")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.03))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="lower left", fontsize=9, title="precision, recall")
    return figure


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
