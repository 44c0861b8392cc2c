"""Metrics: values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lavis.tasks.metrics import (
    Calibrator,
    area_under_curve,
    at_threshold,
    average_precision,
    classification_metrics,
    expected_calibration_error,
    fit_calibrator,
)

SCORES = np.array([0.9, 0.8, 0.6, 0.4, 0.3, 0.1], dtype=np.float32)
LABELS = np.array([1, 0, 1, 1, 0, 0], dtype=np.int8)


def test_precision_and_recall_are_not_swapped():
    # at 0.5 three are kept, two of them rightly; three should have been kept
    # at 0.35 four are kept, three of them rightly
    rates = at_threshold(SCORES, LABELS, 0.35)
    assert (rates["kept"], rates["precision"], rates["recall"]) == (4, 0.75, 1.0)
    assert rates["f1"] == pytest.approx(2 * 0.75 / 1.75)
    assert rates["accuracy"] == pytest.approx(5 / 6)
    assert rates["kept_share"] == pytest.approx(4 / 6)
    assert at_threshold(SCORES, LABELS, 0.95)["precision"] is None


def test_a_score_equal_to_the_threshold_is_kept():
    assert at_threshold(np.array([0.5], dtype=np.float32), np.array([1]), 0.5)["kept"] == 1


def test_ranking_metrics():
    # 9 pairs; wrong order: 0.8 (reject) over 0.6 and over 0.4
    assert area_under_curve(SCORES, LABELS) == pytest.approx(7 / 9)
    # precision at each accepted text, by falling score: 1/1, 2/3, 3/4
    assert average_precision(SCORES, LABELS) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert area_under_curve(SCORES, np.ones(6)) is None
    assert average_precision(SCORES, np.zeros(6)) is None


def test_expected_calibration_error():
    scores = np.array([0.05, 0.15, 0.62, 0.68, 1.0])
    labels = np.array([0, 1, 1, 0, 1])
    # ten bins: |0.05-0| + |0.15-1| + |1.30-1| + |1.0-1|, over five
    expected = (0.05 + 0.85 + 0.30 + 0.0) / 5
    assert expected_calibration_error(scores, labels, bins=10) == pytest.approx(expected)
    assert expected_calibration_error(scores[:0], labels[:0]) is None


def test_all_metrics_of_a_labelled_set():
    predictions = (SCORES > 0.5).astype(np.int8)
    metrics = classification_metrics(SCORES, LABELS, predictions, [0.35, 0.7])
    assert metrics["acc"] == metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["weighted_precision"] == pytest.approx(2 / 3)
    assert metrics["accept_share"] == 0.5
    assert list(metrics["at_threshold"]) == ["0.35", "0.7"]
    assert metrics["at_threshold"]["0.7"]["precision"] == 0.5
    assert [m["kept"] for m in metrics["sweep"]][:3] == [6, 6, 5]


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_repairs_overconfident_scores(method):
    rng = np.random.default_rng(0)
    odds = rng.normal(size=4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-odds))).astype(np.int8)
    scores = 1 / (1 + np.exp(-3 * odds))  # three times too sure
    calibrator = fit_calibrator(method, scores, labels)
    before = expected_calibration_error(scores, labels)
    after = expected_calibration_error(calibrator(scores), labels)
    assert before > 0.1 and after < 0.03
    if method == "temperature":
        assert calibrator.temperature == pytest.approx(3, rel=0.1)
    order = np.argsort(scores)
    assert (np.diff(calibrator(scores)[order]) >= 0).all()
    again = Calibrator(**calibrator.to_json())
    np.testing.assert_array_equal(again(scores), calibrator(scores))


def test_calibration_needs_both_labels():
    with pytest.raises(ValueError, match="all labels are equal"):
        fit_calibrator("temperature", SCORES, np.ones(6))
