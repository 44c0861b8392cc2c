"""Accuracies, bootstrap intervals and sign tests; values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lavis.tasks.statistics import compare, describe, interval, majority, sign_test

RESAMPLES = 20_000  # so many that the quantiles below are those of the exact distribution


def right(count: int, of: int) -> np.ndarray:
    """Marks of `of` questions, `count` of them right."""
    return np.arange(of) < count


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        # Resampled right answers of 16 with 8 right are Binomial(16, 1/2): P(X <= 3) = .0106 and
        # P(X <= 4) = .0384 hold .025 between them. 50 % lies in 7 to 9, 90 % in 5 to 11, 99 % in 3
        # to 13.
        (8, 16, 4, 12),
        # Binomial(10, 0.4): P(0) = .006, P(<= 1) = .046; P(<= 6) = .945, P(<= 7) = .988
        (4, 10, 1, 7),
        # Binomial(4, 1/4): P(0) = .316; P(<= 2) = .949, P(<= 3) = .996
        (1, 4, 0, 3),
    ],
)
def test_the_interval_holds_95_percent_of_the_resampled_means(count, of, low, high):
    values = right(count, of).astype(np.float64)
    for seed in range(3):
        found = interval(values, RESAMPLES, seed)
        assert found == pytest.approx([100 * low / of, 100 * high / of])
    # a difference of two columns: -1 and 1 in place of 0 and 1
    found = interval(2 * values - 1, RESAMPLES, 0)
    assert found == pytest.approx([100 * (2 * low / of - 1), 100 * (2 * high / of - 1)])


def test_values_of_several_levels_are_drawn_by_how_often_they_occur():
    values = np.array([0.0, 1 / 3, 1 / 3, 1.0])
    # Four draws: all are 0 with P = 1/256, a third beside three zeros has 8/256, so that .025 lies
    # at a mean of 1/12; on the other side three ones and a third have 8/256, their mean is 10/12.
    assert interval(values, RESAMPLES, 0) == pytest.approx([100 / 12, 100 * 10 / 12])


def test_an_interval_is_that_of_its_seed():
    values = np.random.default_rng(7).random(50)
    found = [interval(values, 40, seed) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]
    assert interval(values, 41, 3) != found[0]  # as many resamples as were asked for


def test_an_interval_needs_two_values():
    assert interval(np.array([1.0]), 100, 0) is None
    assert interval(np.array([]), 100, 0) is None
    assert interval(np.array([1.0, 0.0]), 1000, 0) == [0.0, 100.0]
    assert interval(np.ones(9), 100, 0) == [100.0, 100.0]


def test_accuracies_by_prompt_and_their_spread():
    marks = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    found = describe(marks, RESAMPLES, 0)
    assert found["questions"] == 4
    assert found["per_prompt"] == [75.0, 25.0]
    assert found["mean"] == 50.0
    assert found["std"] == pytest.approx(math.sqrt(2 * 25**2))  # (n - 1) in the denominator
    # Questions are drawn, not marks: means 1/2, 1, 0, 1/2 are sums of eight coins,
    # P(X = 0) = .004, P(X <= 1) = .035
    assert found["interval"] == pytest.approx([12.5, 87.5])
    alone = describe(marks[:, :1], 10, 0)
    assert alone["std"] is None and alone["per_prompt"] == [75.0]


def test_two_columns_are_compared_question_by_question():
    text = np.array([[0.0], [0.0], [0.0], [1.0], [1.0]])
    fused = np.array([[1.0], [1.0], [1.0], [0.0], [1.0]])
    found = compare(fused, text, RESAMPLES, 0)
    assert (found["better"], found["worse"]) == (3, 1)
    assert found["difference"] == pytest.approx(40.0)
    assert found["p_value"] == pytest.approx(10 / 16)  # P(0, 1, 3 or 4 of 4)
    other_way = compare(text, fused, RESAMPLES, 0)
    assert (other_way["better"], other_way["worse"]) == (1, 3)
    assert other_way["difference"] == pytest.approx(-40.0)


def test_a_difference_has_the_interval_of_pairs():
    # Each pair differs by the same, so the pairs' interval has no width; that of unpaired means
    # would be wide.
    text = np.linspace(0, 0.5, 20)[:, None]
    found = compare(text + 0.25, text, 100, 0)
    assert found["interval"] == pytest.approx([25.0, 25.0])
    assert (found["better"], found["worse"], found["difference"]) == (20, 0, pytest.approx(25.0))
    # 8 of 16 pairs gain 1, the others nothing: Binomial(16, 1/2) again
    gains = right(8, 16).astype(np.float64)[:, None]
    found = compare(gains, np.zeros((16, 1)), RESAMPLES, 0)
    assert found["interval"] == pytest.approx([25.0, 75.0])
    assert found["p_value"] == pytest.approx(2 / 2**8)


def test_pairs_that_differ_by_rounding_alone_are_ties():
    # the same three F1 in another order: their sums differ in the last bit
    one, other = np.array([[0.1, 0.2, 0.3]]), np.array([[0.3, 0.2, 0.1]])
    assert one.mean(axis=1) != other.mean(axis=1)
    found = compare(np.repeat(one, 4, axis=0), np.repeat(other, 4, axis=0), 100, 0)
    assert (found["better"], found["worse"], found["p_value"]) == (0, 0, None)
    assert found["difference"] == pytest.approx(0.0)


def test_comparisons_and_descriptions_follow_their_seed():
    draw = np.random.default_rng(1)
    marks, reference = draw.random((40, 2)), draw.random((40, 2))
    for of in (
        lambda seed: describe(marks, 30, seed)["interval"],
        lambda seed: compare(marks, reference, 30, seed)["interval"],
    ):
        assert of(5) == of(5) != of(6)


def test_the_sign_test_is_exact_and_two_sided():
    assert sign_test(0, 0) is None
    assert sign_test(5, 0) == sign_test(0, 5) == pytest.approx(2 / 32)
    assert sign_test(1, 1) == 1.0
    assert sign_test(7, 1) == pytest.approx(2 * (1 + 8) / 2**8)


def test_the_most_frequent_answer():
    assert majority(["a", "b", "a"]) == pytest.approx(200 / 3)
    assert majority(["b"]) == 100.0
    assert majority([]) is None
