"""The summary of scored rows: counts, shares, slices and statistics by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lavis.tasks.filtering import summary as module
from lavis.tasks.filtering.results import RowTable
from lavis.tasks.filtering.summary import calibration_report, summarize
from lavis.tasks.metrics import expected_calibration_error


def table_of(scores, labels=None, predictions=None, sources=None):
    table = RowTable(len(scores))
    table.scores[:] = scores
    if labels is not None:
        table.labels[:] = labels
    if predictions is not None:
        table.predictions[:] = predictions
    if sources is not None:
        table.groups["source"].set(range(len(scores)), sources)
    return table


SCORES = [0.75, 0.5, 0.25, np.nan, 1.0]
LABELS = [1, 0, 0, 1, -1]


def test_rows_are_counted_and_shares_are_of_the_scored_ones(tmp_path):
    table = table_of(SCORES)
    table.reasons.update({"text": 1, "picture": 2})
    table.kept = {0.5: 3}
    found = summarize(table, "val_epoch1", [0.9, 0.5])
    assert (found["name"], found["rows"], found["scored"], found["rejected"]) == (
        "val_epoch1", 5, 4, 1,
    )  # fmt: skip
    assert list(found["rejected_by_reason"].items()) == [("picture", 2), ("text", 1)]
    file = "kept/val_epoch1_filtered_threshold_0.5.jsonl"
    assert found["kept"] == {"0.5": {"rows": 3, "share": 0.75, "file": file}}  # 0.9: not written
    score = found["score"]
    assert (score["min"], score["max"], score["mean"]) == (0.25, 1.0, 0.625)
    assert score["std"] == pytest.approx(np.sqrt((2 * 0.125**2 + 2 * 0.375**2) / 4))
    assert list(score["quantiles"]) == [
        "0.01", "0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "0.99",
    ]  # fmt: skip
    # between neighbours of 0.25, 0.5, 0.75, 1: at 3 q
    assert score["quantiles"]["0.5"] == 0.625
    assert score["quantiles"]["0.1"] == pytest.approx(0.25 + 0.3 * 0.25)
    assert score["quantiles"]["0.99"] == pytest.approx(1 - 0.03 * 0.25)
    assert "metrics" not in found and "by_source" not in found


def test_nothing_scored_has_no_statistics(tmp_path):
    table = table_of([np.nan], labels=[1])
    table.kept = {0.5: 0}
    found = summarize(table, "test_epochbest", [0.5])
    assert (found["rows"], found["scored"], found["rejected"]) == (1, 0, 1)
    assert found["score"] is None and found["kept"]["0.5"]["share"] is None
    assert "metrics" not in found


def test_statistics_are_summed_in_double_precision():
    scores = np.full(3, 0.1, dtype=np.float32)
    assert module._statistics(scores)["mean"] == pytest.approx(float(np.float32(0.1)), abs=1e-15)


def test_slices_hold_counts_and_the_metrics_of_their_labelled_rows(tmp_path):
    table = table_of(SCORES, LABELS, [1, 1, 0, 0, 1], ["a", "a", "b", None, "b"])
    found = summarize(table, "t", [0.5, 0.8])
    assert found["by_source"] == {
        "a": {
            "rows": 2,
            "mean_score": 0.625,
            "kept": {"0.5": 2, "0.8": 0},  # a score at the threshold is kept
            "accept_share": 0.5,
            "accuracy": 0.5,
            "auc": 1.0,
        },
        "b": {
            "rows": 2,
            "mean_score": 0.625,
            "kept": {"0.5": 1, "0.8": 1},
            "accept_share": 0.0,  # the other row has no label
            "accuracy": 1.0,
            "auc": None,
        },
    }
    metrics = found["metrics"]
    assert metrics["labelled"] == 3
    assert metrics["accept_share"] == pytest.approx(1 / 3)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["auc"] == 1.0
    without = summarize(table, "t", [0.5], with_metrics=False)
    assert "metrics" not in without
    assert without["by_source"]["a"] == {"rows": 2, "mean_score": 0.625, "kept": {"0.5": 2}}


def test_a_kept_score_is_compared_as_it_is_written(tmp_path):
    table = table_of([0.7], [1], [1], ["a"])  # 0.699999988 in single precision
    found = summarize(table, "t", [0.7])
    assert found["by_source"]["a"]["kept"] == {"0.7": 0}
    assert found["metrics"]["at_threshold"]["0.7"]["kept"] == 0
    assert found["by_source"]["a"]["mean_score"] == float(np.float32(0.7))


def test_the_smallest_slices_share_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_SLICES", 2)
    sources = ["a", "b", "b", "c", "c", "c", "d"]
    scores = [0.5, 0.1, 0.1, 0.2, 0.2, 0.2, 1.0]
    table = table_of(scores, [1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1], sources)
    found = summarize(table, "t", [0.6])["by_source"]
    assert [(value, part["rows"]) for value, part in found.items()] == [
        ("b", 2), ("c", 3), ("2 others", 2),
    ]  # fmt: skip
    assert found["2 others"] == {
        "rows": 2,
        "mean_score": 0.75,
        "kept": {"0.6": 1},
        "accept_share": 0.5,
        "accuracy": 0.5,
        "auc": 0.0,
    }
    without = summarize(table, "t", [0.6], with_metrics=False)
    assert "auc" not in without["by_source"]["2 others"]


def test_calibration_is_judged_on_the_labelled_rows():
    table = table_of(SCORES, LABELS)
    calibrated = np.array([1.0, 0.0, 0.5, 0.0, 0.0])
    found = calibration_report(table, calibrated)
    # 0.75 accepted, 0.5 and 0.25 rejected; each has a bin of its own
    assert found == {
        "labelled": 3,
        "ece_before": pytest.approx((0.25 + 0.5 + 0.25) / 3),
        "ece_after": pytest.approx(0.5 / 3),
    }
    labelled = np.array([0, 1, 2])
    assert found["ece_before"] == expected_calibration_error(
        table.scores[labelled], table.labels[labelled]
    )
