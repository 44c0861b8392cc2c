"""Two runs of `task: comparison` on the same records: how their figures differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import DataError
from lavis.tasks.comparison.joint_accuracy import result_file
from lavis.tasks.comparison.ranking import ranks, references
from lavis.tasks.statistics import compare

Figures = dict[str, float]  # a record's `instance` -> its figure


def read_figures(run: Path, metric: str, seed: int) -> Figures:
    """Return the figure of every record of a run that the metric can judge.

    Args:
        metric: `accuracy`, `pairwise` or `recall`.
        seed: of tied scores, `run.tie_seed`.

    Raises:
        DataError: no such file, or two records of one `instance`.
    """
    file = result_file(run)
    figures: Figures = {}
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            name = str(row["instance"])
            places = ranks(row["match_scores"], seed, row["instance"])
            for reference in references(row, len(row["texts"])):
                if reference.metric != metric:
                    continue
                if name in figures:
                    raise DataError(f"{file}: item {name} comes twice; items cannot be joined")
                figures[name] = reference.judge_model(places)
    return figures


def compare_figures(
    first: Figures, second: Figures, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Return `lavis.tasks.statistics.compare` of the first less the second, on shared records.

    Returns:
        Also `records`, compared, and `left_out`, of one run only.

    Raises:
        DataError: the runs share no record.
    """
    names = sorted(first.keys() & second.keys())
    if not names:
        raise DataError("two runs share no record; score the same split with both")
    one, other = (np.array([[run[name]] for name in names]) for run in (first, second))
    left_out = len(first.keys() ^ second.keys())
    result = compare(one, other, resamples=resamples, seed=seed)
    return {"records": len(names), "left_out": left_out, **result}
