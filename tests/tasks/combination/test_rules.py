"""Mean, minimum and stacking, against hand-computed values and scikit-learn's own loop."""

import numpy as np
import pytest

from lavis.common.errors import DataError
from lavis.tasks.combination.joining import SharedRows
from lavis.tasks.combination.rules import FOLDS, LEAST, combine
from lavis.tasks.metrics import area_under_curve, log_odds


def shared(scores, labels=None):
    scores = np.array(scores, dtype=np.float32)
    count = scores.shape[1]
    labels = np.full(count, -1) if labels is None else np.array(labels)
    names = tuple("abc"[: len(scores)])
    counts = dict.fromkeys(names, count)
    return SharedRows(names, np.arange(count), scores, labels.astype(np.int8), counts)


def noisy(count=400, labelled=200):
    """Two critics that know different halves of the truth."""
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, count)
    odds = 1.2 * (2 * truth - 1) + draw.normal(0, 1.5, (2, count))
    labels = np.where(np.arange(count) < labelled, truth, -1)
    return shared(1 / (1 + np.exp(-odds)), labels), truth


def test_mean_and_minimum():
    rows = shared([[0.25, 1.0, 0.5], [0.75, 0.5, 0.5]], [1, 0, -1])
    mean = combine(rows, "mean")
    assert mean.scores.tolist() == [0.5, 0.75, 0.5] and mean.scores.dtype == np.float32
    assert mean.auc == {"a": 0.0, "b": 1.0, "combined": 0.0} and mean.fit == {}
    assert combine(rows, "minimum").scores.tolist() == [0.25, 0.5, 0.5]


def test_stacking_scores_labelled_rows_by_fits_on_other_rows():
    rows, truth = noisy()
    result = combine(rows, "logistic", seed=3)
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    odds = log_odds(rows.scores.astype(np.float64)).T
    places, labels = np.arange(200), truth[:200]
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=3).split(places, labels):
        mean, std = odds[train].mean(0), odds[train].std(0)
        fit = LogisticRegression().fit((odds[train] - mean) / std, labels[train])
        expected = fit.predict_proba((odds[test] - mean) / std)[:, 1]
        np.testing.assert_allclose(result.scores[test], expected, atol=1e-6)
    weights = np.array([result.fit["coefficients"][name] for name in "ab"])
    rest = 1 / (1 + np.exp(-(odds[200:] @ weights + result.fit["intercept"])))
    np.testing.assert_allclose(result.scores[200:], rest, atol=1e-6)
    assert result.fit["labelled"] == 200 and result.fit["folds"] == FOLDS
    assert result.auc["combined"] > max(result.auc["a"], result.auc["b"])
    assert result.auc["combined"] == area_under_curve(result.scores[:200], labels)


def test_stacking_cannot_memorise_labels():
    draw = np.random.default_rng(1)
    rows = shared(draw.random((3, 60)), draw.integers(0, 2, 60))
    assert combine(rows, "logistic").auc["combined"] < 0.65  # chance; fitted on itself it is more


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([-1] * 40, "0 rows labelled accept and 0 labelled reject"),
        ([1] * 40, "40 rows labelled accept and 0"),
        ([1] * 31 + [0] * (LEAST - 1), "31 rows labelled accept and 9 labelled reject"),
    ],
)
def test_too_few_labels_are_refused(labels, said):
    rows = shared(np.random.default_rng(0).random((2, 40)), labels)
    with pytest.raises(DataError, match=f"{said}.*it needs 10 of each.*--by mean"):
        combine(rows, "logistic")


def test_a_critic_without_opinion_or_without_doubt_does_no_harm():
    rows, truth = noisy()
    constant, sure = np.full(400, 0.5, np.float32), truth.astype(np.float32)
    one = shared([rows.scores[0], constant], rows.labels)
    assert combine(one, "logistic").fit["coefficients"]["b"] == 0
    other = combine(shared([rows.scores[0], sure], rows.labels), "logistic")
    assert np.isfinite(other.scores).all() and other.auc["combined"] == 1
