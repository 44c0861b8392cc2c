"""Accuracies by prompt with intervals, and comparisons of two columns on the same questions.

Shapes: Q questions, P prompts of a question; `correct` holds numbers from 0 (wrong) to 1 (right).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

DECIMALS = 9  # of a number that count: what is beyond is rounding


def describe(correct: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """Return accuracy of each prompt, mean, standard deviation and interval, all in percent.

    Args:
        correct: `(Q, P)`.
        resamples: of the questions, for the 95 % interval of the mean.

    Returns:
        `questions`, `per_prompt`, `mean`, `std` (sample, over prompts; null for one prompt),
        `interval` [low, high].
    """
    per_prompt = 100 * correct.mean(axis=0)
    return {
        "questions": len(correct),
        "per_prompt": per_prompt.tolist(),
        "mean": float(per_prompt.mean()),
        "std": float(per_prompt.std(ddof=1)) if correct.shape[1] > 1 else None,
        "interval": interval(correct.mean(axis=1), resamples, seed),
    }


def compare(
    correct: np.ndarray, reference: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    """Return how two columns differ on the same questions.

    Args:
        correct, reference: `(Q, P)`.

    Returns:
        `difference` of the means, in points, and its 95 % `interval` over resampled questions;
        `better`, `worse`: questions with a higher, a lower mean; `p_value`: two-sided sign
        test of these two counts (null where both are 0).
    """
    # Rounded: equal means of fractions (F1) may differ in the last bit, which is no difference.
    difference = np.round(correct.mean(axis=1) - reference.mean(axis=1), DECIMALS)
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    return {
        "difference": float(100 * difference.mean()),
        "interval": interval(difference, resamples, seed),
        "better": better,
        "worse": worse,
        "p_value": sign_test(better, worse),
    }


def interval(values: np.ndarray, resamples: int, seed: int) -> list[float] | None:
    """Return the 95 % percentile bootstrap interval of the mean, in percent.

    Values are drawn with replacement, as many as there are, as if each stood for itself (questions
    about one passage or image do not quite). With few of them the interval is too narrow, and it
    has no width where all are equal.

    Args:
        values: `(N,)`.

    Returns:
        [low, high]; None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    levels, sizes = np.unique(np.round(values, DECIMALS), return_counts=True)
    means = rng.multinomial(count, sizes / count, size=resamples) @ levels / count
    low, high = np.quantile(means, [0.025, 0.975])
    return [float(100 * low), float(100 * high)]


def sign_test(better: int, worse: int) -> float | None:
    """Return the two-sided p-value that `better` and `worse` are equally likely."""
    if better + worse == 0:
        return None
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse).pvalue)


def majority(golds: list[str]) -> float | None:
    """Return the share of the most frequent answer, in percent."""
    if not golds:
        return None
    return 100 * max(Counter(golds).values()) / len(golds)
