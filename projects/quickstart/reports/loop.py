"""Print what the loop did: how true the corpora are, what each student answers, with intervals.

    python -m projects.quickstart.reports.loop output/quickstart/loop

Reads the score files that train.py and evaluate.py wrote; writes `loop.json` and `loop.html` beside
them. Intervals are 95 % bootstrap intervals over the questions' scenes, of the mean over seeds.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.command import command
from lavis.common.errors import DataError
from lavis.common.storage.atomic import write_text

RESAMPLES = 2000
TITLES = {
    "chance": "chance",
    "zero_shot": "zero-shot student",
    "unfiltered": "distilled on unfiltered records",
    "filtered": "distilled on filtered records",
}
Rights = dict[str, bool]  # question -> answered rightly


def read_answers(folder: Path) -> tuple[Rights, dict[str, str]]:
    """Return which questions a run answered rightly, and every question's kind."""
    found = sorted((folder / "result").glob("test_*.jsonl"))
    if not found:
        raise DataError(f"{folder / 'result'}: no answers; run scripts/close_loop first")
    rows = [json.loads(line) for line in found[-1].read_text(encoding="utf-8").splitlines()]
    rights = {row["instance"]: row["prediction"] == row["label"] for row in rows}
    return rights, {row["instance"]: row["group"] for row in rows}


def resample(questions: list[str], seed: int = 0) -> np.ndarray:
    """Return `(RESAMPLES, N)` weights of the questions, drawn scene by scene."""
    scenes, place = np.unique([name.rsplit("-", 2)[0] for name in questions], return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(scenes), np.full(len(scenes), 1 / len(scenes)), RESAMPLES)
    return drawn[:, place]


def with_interval(values: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Return the mean of `(N,)` values in percent, with its interval."""
    means = (weights @ values) / weights.sum(axis=1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return {"value": 100 * float(values.mean()), "interval": [float(low), float(high)]}


def summarize(loop: Path) -> dict[str, Any]:
    """Return the corpora, every student's accuracy, by seed and by kind, and their difference."""
    first, kinds = read_answers(loop / "zero_shot")
    questions = sorted(first)
    weights = resample(questions)
    runs: dict[str, dict[str, np.ndarray]] = {"zero_shot": {"": _values(first, questions)}}
    for name in ("unfiltered", "filtered"):
        folders = sorted(loop.glob(f"{name}_*"), key=lambda path: int(path.name.rsplit("_")[-1]))
        runs[name] = {
            path.name.rsplit("_")[-1]: _values(read_answers(path)[0], questions) for path in folders
        }
    students = {}
    for name, by_seed in runs.items():
        mean = np.mean(list(by_seed.values()), axis=0)
        students[name] = with_interval(mean, weights)
        students[name]["kinds"] = {
            kind: 100 * float(mean[[kinds[q] == kind for q in questions]].mean())
            for kind in sorted(set(kinds.values()))
        }
        students[name]["seeds"] = {
            seed: with_interval(values, weights) for seed, values in by_seed.items() if seed
        }
    gain = np.mean(list(runs["filtered"].values()), axis=0)
    gain = gain - np.mean(list(runs["unfiltered"].values()), axis=0)
    return {
        "questions": len(questions),
        "chance": 25.0,
        "corpora": json.loads((loop / "corpora.json").read_text(encoding="utf-8")),
        "students": students,
        "filtered minus unfiltered": with_interval(gain, weights),
    }


def _values(rights: Rights, questions: list[str]) -> np.ndarray:
    if rights.keys() != set(questions):
        sys.exit("the students were asked different questions; run scripts/close_loop again")
    return np.array([rights[question] for question in questions], dtype=float)


def table(report: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the students' table, its header first."""
    kinds = list(report["students"]["zero_shot"]["kinds"])
    chance = f"{report['chance']:.1f}"
    rows = [["", "right, %", "95 % interval", *kinds], [TITLES["chance"], chance, ""]]
    rows[1] += [chance] * len(kinds)
    for name, found in report["students"].items():
        rows.append(_row(TITLES[name], found, kinds))
        if len(found["seeds"]) > 1:
            rows += [_row(f"  seed {seed}", one, []) for seed, one in found["seeds"].items()]
    gain = report["filtered minus unfiltered"]
    rows.append(_row("filtered minus unfiltered", gain, []))
    return rows


def _row(title: str, found: dict[str, Any], kinds: list[str]) -> list[str]:
    low, high = found["interval"]
    shares = [f"{found['kinds'][kind]:.1f}" for kind in kinds]
    return [title, f"{found['value']:.1f}", f"{low:.1f} to {high:.1f}", *shares]


def page(rows: list[list[str]], report: dict[str, Any]) -> str:
    """Return the table as a page."""
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    ]
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>The loop</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<style>:root{color-scheme:light dark}body{font:16px system-ui,sans-serif;max-width:800px;"
        "margin:0 auto;padding:24px 16px}div{overflow-x:auto}table{border-collapse:collapse}"
        "td{padding:4px 12px;border-bottom:1px solid #8884;white-space:pre}</style>"
        f"<h1>Which is true of [1]?</h1><p>{report['questions']} questions about held-out scenes, "
        f"four answers each. {html.escape(corpora_text(report))}</p>"
        f"<div><table>{''.join(lines)}</table></div></html>\n"
    )


def corpora_text(report: dict[str, Any]) -> str:
    """Say how many records there are and how many of them are true."""
    shares = {k: 100 * v["true"] / max(1, v["records"]) for k, v in report["corpora"].items()}
    count = report["corpora"]["filtered"]["records"]
    return (
        f"{count} filtered records, {shares['filtered']:.1f} % of them true, against {count} "
        f"unfiltered ones, {shares['sample']:.1f} % true."
    )


@command
def main() -> None:
    """Sum up the folder of a loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loop", type=Path)
    loop = parser.parse_args().loop
    report = summarize(loop)
    rows = table(report)
    write_text(loop / "loop.json", json.dumps(report, indent=2) + "\n")
    write_text(loop / "loop.html", page(rows, report))
    print(f"\nWhich is true of [1]? {report['questions']} questions about held-out scenes")
    print(corpora_text(report))
    for row in rows:
        print(f"  {row[0]:34}{row[1]:>9}{row[2]:>16}" + "".join(f"{c:>9}" for c in row[3:]))
    print(f"{loop / 'loop.html'} and loop.json hold the same")


if __name__ == "__main__":
    sys.exit(main())
