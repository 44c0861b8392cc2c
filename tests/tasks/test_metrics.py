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


def test_a_score_is_compared_as_it_is_written():
    """0.7 is 0.699999988 in single precision, which is what the result files say."""
    scores = np.array([0.7, 0.72], dtype=np.float32)
    assert at_threshold(scores, np.array([1, 1]), 0.7)["kept"] == 1
    # bins of a tenth: 0.699... lies in the one below 0.72's
    found = expected_calibration_error(scores, np.array([0, 1]), bins=10)
    assert found == pytest.approx((0.7 + 0.28) / 2)


def test_bins_are_as_many_as_said_and_the_last_one_holds_one():
    scores, labels = np.array([0.95, 1.0, 0.86]), np.array([1, 0, 1])
    # ten bins: 0.95 and 1 share the last, |1.95 - 1| + |0.86 - 1|; apart they would have 1.05
    expected = (0.95 + 0.14) / 3
    assert expected_calibration_error(scores, labels, bins=10) == pytest.approx(expected)
    # fifteen bins of .0667: 0.86 lies below .8667, the others above .9333
    assert expected_calibration_error(scores, labels) == pytest.approx(expected)
    # 0.935 and 0.94 would part at .9375 if there were sixteen
    apart = expected_calibration_error(np.array([0.935, 0.94]), np.array([1, 0]))
    assert apart == pytest.approx(abs(0.935 + 0.94 - 1) / 2)


def test_rates_of_empty_sets_are_not_numbers():
    nothing = at_threshold(SCORES[:0], LABELS[:0], 0.5)
    assert nothing == {
        "kept": 0, "kept_share": None, "precision": None, "recall": None, "f1": None,
        "accuracy": None, "threshold": 0.5,
    }  # fmt: skip
    rejects = at_threshold(np.array([0.9, 0.1]), np.array([0, 0]), 0.5)
    assert (rejects["precision"], rejects["recall"], rejects["f1"]) == (0.0, None, 0.0)
    # as many are kept as should be: half of them rightly
    even = at_threshold(np.array([0.9, 0.8, 0.1]), np.array([1, 0, 1]), 0.5)
    assert (even["precision"], even["recall"], even["f1"]) == (0.5, 0.5, 0.5)


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


def test_weighted_averages_count_both_classes_by_size(recwarn):
    labels = np.array([1, 1, 1, 0], dtype=np.int8)
    predictions = np.array([1, 1, 0, 0], dtype=np.int8)
    scores = np.array([0.9, 0.8, 0.4, 0.2])
    metrics = classification_metrics(scores, labels, predictions, [])
    # accept: precision 1, recall 2/3, F1 4/5; reject: 1/2, 1, 2/3
    assert metrics["weighted_precision"] == pytest.approx((3 * 1 + 1 / 2) / 4)
    assert metrics["weighted_recall"] == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert metrics["weighted_f1"] == pytest.approx((3 * 4 / 5 + 2 / 3) / 4)
    assert metrics["accept_share"] == 0.75 and metrics["labelled"] == 4
    assert metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.2) / 4)
    # nothing is predicted to be accepted: its precision counts as 0, without a warning
    metrics = classification_metrics(scores, labels, np.zeros(4, dtype=np.int8), [])
    assert metrics["weighted_precision"] == pytest.approx(1 / 16)
    assert not recwarn.list


def test_temperature_by_hand():
    # Three of four texts at odds of 9 to 1 are accepted: the likeliest odds are 3 to 1, so that
    # the log-odds are halved; both sides of one half say the same.
    scores = np.array([0.9] * 4 + [0.1] * 4)
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    found = fit_calibrator("temperature", scores, labels)
    assert (found.method, found.temperature) == ("temperature", pytest.approx(2.0, rel=1e-5))
    np.testing.assert_allclose(found(scores), [0.75] * 4 + [0.25] * 4, atol=1e-6)
    hot = Calibrator("temperature", temperature=0.5)
    np.testing.assert_allclose(hot(np.array([0.75, 0.5])), [0.9, 0.5])


def test_temperature_is_bounded_and_certain_scores_have_odds():
    separable = fit_calibrator("temperature", np.array([0.6, 0.4]), np.array([1, 0]))
    assert separable.temperature == pytest.approx(np.exp(-5), rel=1e-3)
    useless = fit_calibrator("temperature", np.array([0.6, 0.4]), np.array([0, 1]))
    assert useless.temperature == pytest.approx(np.exp(5), rel=1e-3)
    certain = Calibrator("temperature", temperature=2.0)(np.array([0.0, 1.0], dtype=np.float32))
    # log-odds of 1e-7 and of 1 - 1e-7, halved
    expected = 1 / (1 + np.sqrt(1e7 - 1))
    np.testing.assert_allclose(certain, [expected, 1 - expected], rtol=1e-6)
    scores, labels = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0, 1, 0, 1])
    assert np.isfinite(fit_calibrator("temperature", scores, labels).temperature)


def test_isotonic_by_hand():
    scores = np.array([0.2, 0.4, 0.6, 0.8])
    found = fit_calibrator("isotonic", scores, np.array([0, 1, 0, 1]))
    # 0.4 and 0.6 are in the wrong order: both get their mean
    assert found.method == "isotonic"
    assert found.knots == ((0.2, 0.0), (0.4, 0.5), (0.6, 0.5), (0.8, 1.0))
    np.testing.assert_allclose(
        found(np.array([0.0, 0.3, 0.5, 0.7, 1.0])), [0.0, 0.25, 0.5, 0.75, 1.0]
    )


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
    message = r"^calibration needs accepted and rejected texts; all labels are equal$"
    with pytest.raises(ValueError, match=message):
        fit_calibrator("temperature", SCORES, np.ones(6))
