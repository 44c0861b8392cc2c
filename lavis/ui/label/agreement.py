"""Agreement of annotators beyond chance: Cohen's kappa of two, Fleiss' kappa of several.

Cohen (1960), a coefficient of agreement for nominal scales; with squared weights for scores (Cohen
1968). Fleiss (1971), measuring nominal scale agreement among many raters.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lavis.ui.label.judgements import LABELS, Judgement, only_labels


def cohen_kappa(first: Sequence[Any], second: Sequence[Any]) -> float | None:
    """Return the kappa of two people's ratings of the same items, -1 to 1.

    None without items, or where both gave everything one and the same rating (0 / 0).
    """
    from sklearn.metrics import cohen_kappa_score

    if len({*first, *second}) < 2:
        return None
    return float(cohen_kappa_score(list(first), list(second)))


def quadratic_kappa(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Cohen's kappa of two people's scores, weighted by the squared difference.

    1 - E[(a - b)^2 of one item] / E[(a - b)^2 of any two items]; None where that is 0 / 0.
    """
    if not len(first):
        return None
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    by_chance = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    if np.isclose(by_chance, 0):
        return None
    return float(1 - ((a - b) ** 2).mean() / by_chance)


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Return the kappa of several people.

    Args:
        counts: (items, categories), how many people put the item in the category; every row has
            the same sum, two or more.

    Returns:
        At most 1; None without items, or where only one category was ever used (0 / 0).

    Raises:
        ValueError: rows of different sums, or sums below two.
    """
    table = np.asarray(counts, dtype=np.float64)
    if not len(table):
        return None
    people = table.sum(axis=1)
    if people.min() != people.max() or people[0] < 2:
        raise ValueError("every item needs the same number of ratings, two or more")
    n = people[0]
    observed = float((((table**2).sum(axis=1) - n) / (n * (n - 1))).mean())
    shares = table.sum(axis=0) / table.sum()
    by_chance = float((shares**2).sum())
    if np.isclose(by_chance, 1):
        return None
    return (observed - by_chance) / (1 - by_chance)


def verdict_counts(judged: Mapping[str, Mapping[str, Judgement]]) -> dict[str, np.ndarray]:
    """Return key -> (accepts, rejects) over all annotators."""
    counts: dict[str, np.ndarray] = {}
    for judgements in judged.values():
        for key, judgement in judgements.items():
            row = counts.setdefault(key, np.zeros(2, dtype=np.int64))
            row[LABELS.index(judgement.verdict)] += 1
    return counts


def differing(judged: Mapping[str, Mapping[str, Judgement]]) -> list[str]:
    """Return the keys of records that some people accept and others reject, sorted."""
    return sorted(key for key, row in verdict_counts(judged).items() if row.min() > 0)


def agreement_report(judged: Mapping[str, Mapping[str, Judgement]]) -> dict[str, Any]:
    """Return counts, raw agreement and kappas, JSON-able.

    Fleiss' kappa covers the records judged by the usual number of people (two or more, the number
    that most records have); `records` beside it counts them.

    Args:
        judged: annotator -> record's key -> judgement; `skip` and `unsure` count as not judged.
    """
    judged = only_labels(judged)
    counts = verdict_counts(judged)
    sizes = Counter(int(row.sum()) for row in counts.values() if row.sum() >= 2)
    report: dict[str, Any] = {
        "records_judged": len(counts),
        "records_judged_by_two_or_more": sum(sizes.values()),
        "annotators": {name: _person(judgements) for name, judgements in judged.items()},
        "pairs": [_pair(a, b, judged[a], judged[b]) for a, b in itertools.combinations(judged, 2)],
    }
    if sizes:
        usual = max(sizes, key=lambda size: (sizes[size], size))
        table = np.stack([row for row in counts.values() if row.sum() == usual])
        report["fleiss"] = {
            "kappa": fleiss_kappa(table),
            "people_per_record": usual,
            "records": len(table),
            "unanimous": float((table.max(axis=1) == usual).mean()),
        }
    return report


def _person(judgements: Mapping[str, Judgement]) -> dict[str, Any]:
    verdicts = [j.verdict for j in judgements.values()]
    seconds = [j.seconds for j in judgements.values() if j.seconds is not None]
    return {
        "judged": len(verdicts),
        "accepted": verdicts.count("accept"),
        "median_seconds": float(np.median(seconds)) if seconds else None,
    }


def _pair(
    name: str, other: str, first: Mapping[str, Judgement], second: Mapping[str, Judgement]
) -> dict[str, Any]:
    keys = [key for key in first if key in second]
    verdicts = [[j[key].verdict for key in keys] for j in (first, second)]
    same = sum(a == b for a, b in zip(*verdicts, strict=True))
    report: dict[str, Any] = {
        "annotators": [name, other],
        "records": len(keys),
        "same_verdict": same / len(keys) if keys else None,
        "cohen_kappa": cohen_kappa(*verdicts),
    }
    for score in ("qa_score", "r_score"):
        values = [(getattr(first[k], score), getattr(second[k], score)) for k in keys]
        both = [(a, b) for a, b in values if a is not None and b is not None]
        columns = ([a for a, _ in both], [b for _, b in both])
        report[f"{score}_kappa_quadratic"] = quadratic_kappa(*columns)
    return report
