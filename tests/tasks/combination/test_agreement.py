"""Correlations, kept sets and chosen rows, by hand."""

import numpy as np
import pytest

from lavis.tasks.combination.agreement import choose_disagreements, correlations, kept_sets
from lavis.tasks.combination.joining import SharedRows


def shared(*scores):
    scores = np.array(scores, dtype=np.float32)
    count = scores.shape[1]
    names = tuple("abc"[: len(scores)])
    labels = np.full(count, -1, np.int8)
    return SharedRows(names, np.arange(count), scores, labels, dict.fromkeys(names, count))


def test_rank_correlations():
    (pair,) = correlations(shared([0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.9, 0.95]))
    assert pair["critics"] == ["a", "b"]
    assert pair["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert pair["kendall"] == pytest.approx((5 - 1) / 6)
    pairs = correlations(shared([0.1, 0.2], [0.5, 0.5], [0.9, 0.1]))
    assert [pair["spearman"] for pair in pairs] == [None, pytest.approx(-1), None]


def test_kept_sets_at_thresholds():
    rows = shared([0.7, 0.7, 0.1, 0.9], [0.7, 0.2, 0.2, 0.6])
    combined = rows.scores.mean(axis=0)
    low, high = kept_sets(rows, combined, [0.5, 0.7])
    assert low["kept"] == {"a": 3, "b": 2, "combined": 2}
    assert (low["all"], low["none"]) == (2, 1)
    pair = {"critics": ["a", "b"], "both": 2, "first_only": 1, "second_only": 0}
    assert low["pairs"] == [{**pair, "shared": pytest.approx(2 / 3)}]
    # 0.7 of float32 lies below 0.7: neither is kept, as filtering decides it
    assert high["kept"] == {"a": 1, "b": 0, "combined": 1}
    (none,) = kept_sets(rows, combined, [1.0])
    assert none["pairs"][0]["shared"] is None


def test_rows_are_chosen_by_how_far_one_critic_stands_alone():
    rows = shared([0.9, 0.6, 0.1, 0.2, 0.8], [0.1, 0.4, 0.9, 0.1, 0.9])
    assert choose_disagreements(rows, 0.5, 5) == {
        "Only a keeps": [0],
        "Only b keeps": [2],
        "Farthest apart": [1, 3, 4],
    }
    assert choose_disagreements(rows, 0.5, 0) == {}
    assert choose_disagreements(shared([0.5, 0.5], [0.5, 0.5]), 0.5, 9) == {}


def test_of_three_critics_one_may_drop_alone():
    rows = shared([0.1, 0.9, 0.9], [0.9, 0.8, 0.2], [0.6, 0.7, 0.1])
    chosen = choose_disagreements(rows, 0.5, 30)
    assert chosen == {"Only a keeps": [2], "Only a drops": [0], "Farthest apart": [1]}
