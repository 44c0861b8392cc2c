"""Accuracy of two multiple-choice runs on the same items together: VCR's Q -> AR.

Reads the result files of `task: comparison`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import DataError
from lavis.tasks.statistics import interval


def result_file(path: Path) -> Path:
    """Return the per-record file of a run: `path` itself, or that of `test`, or the only one.

    Raises:
        DataError: none, or several.
    """
    if path.is_file():
        return path
    of_test = path / "result" / "test_epochbest.jsonl"
    if of_test.is_file():
        return of_test
    files = sorted((path / "result").glob("*_epochbest.jsonl"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{path}: one result/*_epochbest.jsonl was expected, found {names}")
    return files[0]


def read_results(path: Path) -> dict[str, tuple[bool, float]]:
    """Return `instance` -> (right, chance) of the labelled records of a run.

    Raises:
        DataError: no such file, or a duplicate item.
    """
    file = result_file(path)
    results: dict[str, tuple[bool, float]] = {}
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("label") is None or len(row["texts"]) < 2:
                continue
            name = str(row["instance"])
            if name in results:
                raise DataError(f"{file}: item {name} comes twice; items cannot be joined")
            results[name] = (row["prediction"] == row["label"], 1 / len(row["texts"]))
    return results


def joint_accuracy(
    first: dict[str, tuple[bool, float]],
    second: dict[str, tuple[bool, float]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return both runs' accuracy and that of both together, on the items that both scored.

    Returns:
        `items`, `left_out` (items of one run only), and `first`, `second`, `both`: `value`, 95 %
        bootstrap `interval` over items and `chance`, in percent. `value` of `both` counts items
        that are right in both runs.

    Raises:
        DataError: the runs share no item.
    """
    names = sorted(first.keys() & second.keys())
    if not names:
        raise DataError("the two runs share no item; score both with labels, of the same split")
    table = {
        "first": np.array([first[name] for name in names], dtype=np.float64),
        "second": np.array([second[name] for name in names], dtype=np.float64),
    }
    table["both"] = table["first"] * table["second"]  # right in both, product of chances
    figures = {
        name: {
            "value": float(100 * values[:, 0].mean()),
            "interval": interval(values[:, 0], resamples, seed),
            "chance": float(100 * values[:, 1].mean()),
        }
        for name, values in table.items()
    }
    return {"items": len(names), "left_out": len(first.keys() ^ second.keys()), **figures}
