"""Where critics agree: rank correlations, kept sets at thresholds, and rows they differ on.

Shapes: K critics, R rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lavis.tasks.combination.joining import SharedRows


def correlations(rows: SharedRows) -> list[dict[str, Any]]:
    """Return Spearman's and Kendall's (tau-b) rank correlation of every two critics.

    None where a critic gives one score to every row.
    """
    from scipy.stats import kendalltau, spearmanr

    pairs = []
    for first, second in itertools.combinations(range(len(rows.names)), 2):
        one, other = rows.scores[first], rows.scores[second]
        is_flat = min(np.ptp(one), np.ptp(other)) == 0
        pairs.append(
            {
                "critics": [rows.names[first], rows.names[second]],
                "spearman": None if is_flat else float(spearmanr(one, other).statistic),
                "kendall": None if is_flat else float(kendalltau(one, other).statistic),
            }
        )
    return pairs


def kept(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return which scores reach a threshold, as filtering decides it; of any shape."""
    result: np.ndarray = scores.astype(np.float64) >= threshold
    return result


def kept_sets(
    rows: SharedRows, scores: np.ndarray, thresholds: Sequence[float]
) -> list[dict[str, Any]]:
    """Return for each threshold what every critic keeps, and every two of them.

    Args:
        scores: `(R,)`, the combined ones.

    Returns:
        `threshold`, `kept` by critic and `combined`, `all`, `none`, and `pairs`: `critics`,
        `both`, `first_only`, `second_only`, `shared` (both of those that either keeps).
    """
    tables = []
    for threshold in thresholds:
        sets = kept(rows.scores, threshold)  # (K, R)
        tables.append(
            {
                "threshold": threshold,
                "kept": dict(zip(rows.names, sets.sum(axis=1).tolist(), strict=True))
                | {"combined": int(kept(scores, threshold).sum())},
                "all": int(sets.all(axis=0).sum()),
                "none": int((~sets).all(axis=0).sum()),
                "pairs": [
                    _pair(rows.names[i], rows.names[j], sets[i], sets[j])
                    for i, j in itertools.combinations(range(len(sets)), 2)
                ],
            }
        )
    return tables


def _pair(first: str, second: str, one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    both, either = int((one & other).sum()), int((one | other).sum())
    return {
        "critics": [first, second],
        "both": both,
        "first_only": int((one & ~other).sum()),
        "second_only": int((other & ~one).sum()),
        "shared": both / either if either else None,
    }


def choose_disagreements(rows: SharedRows, threshold: float, count: int) -> dict[str, list[int]]:
    """Return places of rows to show, by the reason to show them; the same for the same scores.

    The rows that one critic alone keeps, or of three or more critics alone drops, by the distance
    to the next critic's score; then those whose scores are farthest apart.
    """
    groups = list(_groups(rows, threshold))
    chosen: dict[str, list[int]] = {}
    used: set[int] = set()
    for number, (title, places, distances) in enumerate(groups):
        share = (count - len(used)) // (len(groups) - number)
        order = places[np.argsort(-distances, kind="stable")].tolist()
        picked = list(itertools.islice((p for p in order if p not in used), share))
        used.update(picked)
        if picked:
            chosen[title] = picked
    return chosen


def _groups(rows: SharedRows, threshold: float) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield title, places and distances."""
    scores = rows.scores
    sets = kept(scores, threshold)
    for critic, name in enumerate(rows.names):
        others = [other for other in range(len(scores)) if other != critic]
        alone = np.flatnonzero(sets[critic] & ~sets[others].any(axis=0))
        nearest = scores[others][:, alone].max(axis=0, initial=0)
        yield f"Only {name} keeps", alone, scores[critic, alone] - nearest
        if len(others) > 1:
            alone = np.flatnonzero(~sets[critic] & sets[others].all(axis=0))
            nearest = scores[others][:, alone].min(axis=0, initial=1)
            yield f"Only {name} drops", alone, nearest - scores[critic, alone]
    spread = scores.max(axis=0) - scores.min(axis=0)
    differing = np.flatnonzero(spread > 0)
    yield "Farthest apart", differing, spread[differing]
