"""Figures of merit of accept scores, and their calibration.

`scores` are P(accept), `(N,)` in [0, 1]; `labels` are `(N,)`, 1 accept and 0 reject. A text counts
as accepted at a threshold when its score is at or above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SWEEP = tuple(round(0.05 * n, 2) for n in range(1, 20))
ECE_BINS = 15
EPSILON = 1e-7  # scores are float32: nearer to 0 or 1 than this they have no log-odds


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the ROC AUC: the chance that an accepted text outscores a rejected one."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if _both_classes(labels) else None


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the area under the precision-recall curve as scikit-learn sums it."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if _both_classes(labels) else None


def expected_calibration_error(
    scores: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS
) -> float | None:
    """Return the mean gap between score and share of accepted texts, weighted by bin size.

    Bins are equally wide over [0, 1], on P(accept) itself rather than on the confidence in the
    predicted class, so that over-confidence on both sides is seen.
    """
    if not len(scores):
        return None
    values = np.asarray(scores, dtype=np.float64)
    places = np.minimum((values * bins).astype(np.int64), bins - 1)
    score_sums = np.bincount(places, weights=values, minlength=bins)
    label_sums = np.bincount(places, weights=labels, minlength=bins)
    return float(np.abs(score_sums - label_sums).sum() / len(values))


def at_threshold(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return counts and rates when texts scored at or above `threshold` are accepted.

    Precision, recall and F1 are those of the class accept. The released code swapped the first
    two by passing predictions as truth. `precision` is null if nothing is accepted.
    """
    return _rates(np.asarray(scores, dtype=np.float64) >= threshold, labels) | {
        "threshold": threshold
    }


def classification_metrics(
    scores: np.ndarray, labels: np.ndarray, predictions: np.ndarray, thresholds: Sequence[float]
) -> dict[str, Any]:
    """Return every metric of a labelled set.

    Args:
        scores: `(N,)` P(accept).
        labels: `(N,)` 0 or 1.
        predictions: `(N,)` 0 or 1, the larger of the two logits.
        thresholds: the run's `keep_above`.

    Returns:
        `acc` (released name) and `accuracy` of the predictions, `precision`, `recall`, `f1` of
        the class accept, `weighted_*` averaged over both classes by their size (what the
        released code meant to report), `auc`, `average_precision`, `ece`, `at_threshold` by
        threshold and `sweep`.
    """
    from sklearn.metrics import precision_recall_fscore_support

    rates = _rates(predictions == 1, labels)
    weighted = precision_recall_fscore_support(
        labels, predictions, average="weighted", zero_division=0
    )
    return {
        "acc": rates["accuracy"],
        **{name: rates[name] for name in ("accuracy", "precision", "recall", "f1")},
        "weighted_precision": float(weighted[0]),
        "weighted_recall": float(weighted[1]),
        "weighted_f1": float(weighted[2]),
        "auc": area_under_curve(scores, labels),
        "average_precision": average_precision(scores, labels),
        "ece": expected_calibration_error(scores, labels),
        "labelled": len(labels),
        "accept_share": float(np.mean(labels == 1)),
        "at_threshold": {str(t): at_threshold(scores, labels, t) for t in thresholds},
        "sweep": [at_threshold(scores, labels, t) for t in SWEEP],
    }


@dataclass(frozen=True)
class Calibrator:
    """Maps a score to a calibrated one, keeping the order of scores.

    Attributes:
        method: `temperature` or `isotonic`.
        temperature: divides the log-odds; above 1 it makes scores less sure.
        knots: (score, calibrated score) pairs of a piecewise linear, rising map.
    """

    method: str
    temperature: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return calibrated scores, `(N,)` float64."""
        values = np.asarray(scores, dtype=np.float64)
        if self.method == "temperature":
            return np.asarray(1 / (1 + np.exp(-log_odds(values) / self.temperature)))
        x, y = np.array(self.knots).T
        return np.interp(values, x, y)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form for `Calibrator(**form)`."""
        return asdict(self)


def fit_calibrator(method: str, scores: np.ndarray, labels: np.ndarray) -> Calibrator:
    """Fit a calibrator to labelled scores.

    Temperature scaling minimises the negative log-likelihood (Guo et al. 2017); isotonic
    regression is scikit-learn's, constant outside the scores seen.

    Raises:
        ValueError: the labels are all equal.
    """
    if not _both_classes(labels):
        raise ValueError("calibration needs accepted and rejected texts; all labels are equal")
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fit = IsotonicRegression().fit(np.asarray(scores, dtype=np.float64), labels)
        pairs = zip(fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist(), strict=True)
        return Calibrator("isotonic", knots=tuple(pairs))
    from scipy.optimize import minimize_scalar

    odds = log_odds(np.asarray(scores, dtype=np.float64))
    signs = np.where(labels == 1, -1.0, 1.0)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, signs * odds * np.exp(-log_temperature)).mean())

    best = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6})
    return Calibrator("temperature", temperature=float(np.exp(best.x)))


def _rates(accepted: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    truth = np.asarray(labels) == 1
    count, kept, right = len(truth), int(accepted.sum()), int((accepted & truth).sum())
    positive = int(truth.sum())
    return {
        "kept": kept,
        "kept_share": kept / count if count else None,
        "precision": right / kept if kept else None,
        "recall": right / positive if positive else None,
        "f1": 2 * right / (kept + positive) if kept + positive else None,
        "accuracy": float(np.mean(accepted == truth)) if count else None,
    }


def _both_classes(labels: np.ndarray) -> bool:
    return len(labels) > 0 and bool((labels == 1).any() and (labels == 0).any())


def log_odds(scores: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of scores, bounded where they are 0 or 1."""
    clipped = np.clip(scores, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
