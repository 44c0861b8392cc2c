"""Charts of reports: what they mark can be read."""

import itertools

import numpy as np

from lavis.tasks.filtering.plots import precision_recall_figure, precision_recall_png


def test_thresholds_that_lie_close_together_are_all_readable():
    scores = np.linspace(0, 1, 201)
    labels = (scores > 0.45).astype(int)
    figure = precision_recall_figure(scores, labels, [0.5, 0.51, 0.52, 0.7])
    axes = figure.axes[0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    # 110 rows are right; 101, 99, 97 and 61 of them lie at or above the thresholds
    assert legend == [
        "at 0.5: 1.000, 0.918",
        "at 0.51: 1.000, 0.900",
        "at 0.52: 1.000, 0.882",
        "at 0.7: 1.000, 0.555",
    ]
    looks = [
        (line.get_marker(), line.get_color()) for line in axes.lines if line.get_marker() != "None"
    ]
    assert len(set(looks)) == 4
    figure.draw_without_rendering()
    boxes = [
        text.get_window_extent().padded(-3)  # lines of text touch
        for text in (*axes.texts, *axes.get_legend().get_texts(), axes.get_legend().get_title())
    ]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_no_threshold_needs_no_legend():
    scores, labels = np.array([0.1, 0.9]), np.array([0, 1])
    assert precision_recall_figure(scores, labels, []).axes[0].get_legend() is None
    assert precision_recall_png(scores, labels, [0.5]).startswith(b"\x89PNG")
