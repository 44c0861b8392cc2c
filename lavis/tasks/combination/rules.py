"""Several critics' scores to one: mean, minimum, or a logistic regression on labelled rows.

Shapes: K critics, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lavis.common.errors import DataError
from lavis.tasks.combination.joining import SharedRows
from lavis.tasks.metrics import area_under_curve, log_odds

Rule = Literal["mean", "minimum", "logistic"]
RULES: tuple[Rule, ...] = ("mean", "minimum", "logistic")
FOLDS = 5
LEAST = 10  # labelled rows of each class that a regression needs


@dataclass(frozen=True)
class Combination:
    """One score for every row.

    Attributes:
        scores: `(R,)` float32, from 0 to 1.
        auc: of each critic and of `combined` on the labelled rows; empty without both labels.
        fit: of a regression: `coefficients` by critic and `intercept` on log-odds, `folds`,
            `labelled`.
    """

    scores: np.ndarray
    auc: dict[str, float] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)


def combine(rows: SharedRows, rule: Rule, *, seed: int = 0) -> Combination:
    """Return a score for every row.

    `logistic` fits the critics' log-odds to labels. A labelled row's score comes from a fit on
    other rows (one of 5 folds), so that thresholds and AUC on these rows are honest; others have
    that of the fit on all. Folds are drawn by row: texts of one image may fall into several.

    Args:
        seed: of the folds.

    Raises:
        DataError: `logistic` without enough labelled rows of either class.
    """
    fit: dict[str, Any] = {}
    if rule == "logistic":
        values, fit = _stack(rows, seed)
    else:
        values = (
            rows.scores.mean(axis=0, dtype=np.float64) if rule == "mean" else rows.scores.min(0)
        )
    scores = values.astype(np.float32)
    return Combination(scores, _areas(rows, scores), fit)


def _stack(rows: SharedRows, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return `(R,)` scores, and the fit on all labelled rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    places = rows.labelled()
    labels = rows.labels[places]
    accepted = int((labels == 1).sum())
    if min(accepted, len(labels) - accepted) < LEAST:
        raise DataError(
            f"logistic: {accepted} rows labelled accept and {len(labels) - accepted} labelled "
            f"reject were scored by all critics; it needs {LEAST} of each: score a labelled split, "
            "or use --by mean"
        )
    odds = log_odds(rows.scores.astype(np.float64)).T  # (R, K)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    held_out = cross_val_predict(model, odds[places], labels, cv=folds, method="predict_proba")
    model.fit(odds[places], labels)
    scores = model.predict_proba(odds)[:, 1]
    scores[places] = held_out[:, 1]
    scaler, regression = model.steps[0][1], model.steps[1][1]
    weights = regression.coef_[0] / scaler.scale_  # (K,), of the log-odds as they are
    intercept = float(regression.intercept_[0] - weights @ scaler.mean_)
    about = {
        "coefficients": dict(zip(rows.names, weights.tolist(), strict=True)),
        "intercept": intercept,
        "labelled": len(labels),
        "folds": FOLDS,
    }
    return scores, about


def _areas(rows: SharedRows, scores: np.ndarray) -> dict[str, float]:
    places = rows.labelled()
    columns = dict(zip(rows.names, rows.scores, strict=True)) | {"combined": scores}
    areas = {
        name: area_under_curve(column[places], rows.labels[places])
        for name, column in columns.items()
    }
    return {name: area for name, area in areas.items() if area is not None}
