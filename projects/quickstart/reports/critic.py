"""Print what the quickstart's filter did: shares of correct records, AUC by kind, the control.

    python -m projects.quickstart.reports.critic output/quickstart --world output/quickstart/world

Reads the score files that evaluate.py wrote; writes `quickstart.json` beside them and credits the
images in `report.html`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.command import command
from lavis.common.errors import DataError
from lavis.common.storage.atomic import write_text
from lavis.tasks.metrics import area_under_curve
from projects.quickstart import openmoji

KINDS = ("object", "kind", "colour", "relation")
Rows = list[dict[str, Any]]


def read_lines(path: Path) -> Rows:
    """Return the JSON objects of a file, one a line."""
    if not path.is_file():
        raise DataError(f"{path}: not there; run scripts/quickstart first")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scored_records(output: Path, world: Path, split: str) -> Rows:
    """Return the records of a split that were scored, each with its `score`."""
    records = {record["index"]: record for record in read_lines(world / f"{split}.jsonl")}
    scores = read_lines(output / "result" / f"{split}_epochbest.jsonl")
    return [{**records[row["instance"]], "score": row["score"]} for row in scores]


def auc(rows: Rows) -> float | None:
    """Area under the ROC curve of accept (1) against reject (0).

    None where they are all accepted, all rejected, or none.
    """
    correct = np.array([1 - row["reject_label"] for row in rows])
    return area_under_curve(np.array([row["score"] for row in rows]), correct)


def auc_table(rows: Rows) -> dict[str, float | None]:
    """AUC of all rows, of each kind, and of colours of objects training never asks for theirs."""
    table = {"all": auc(rows)}
    for kind in KINDS:
        table[kind] = auc([row for row in rows if row["kind"] == kind])
    table["colour, object never asked in training"] = auc(
        [row for row in rows if row["kind"] == "colour" and not row["seen_colour"]]
    )
    return table


def filter_table(rows: Rows, threshold: float) -> dict[str, float | None]:
    """Share of correct records before and after keeping scores from the threshold on."""
    correct = np.array([1 - row["reject_label"] for row in rows], dtype=bool)
    kept = np.array([row["score"] >= threshold for row in rows])
    return {
        "threshold": threshold,
        "records": len(rows),
        "kept": int(kept.sum()),
        "correct before": float(correct.mean()),
        "correct after": float(correct[kept].mean()) if kept.any() else None,
        "correct ones kept": float(kept[correct].mean()) if correct.any() else None,
    }


def print_tables(report: dict[str, Any]) -> None:
    """Write both tables to the terminal."""
    columns = [name for name in ("shipped", "tuned", "control") if name in report["auc"]]
    titles = {
        "shipped": "shipped weights",
        "tuned": "fine-tuned critic",
        "control": "other pictures",
    }
    print(f"\n{'AUC on held-out scenes':42}" + "".join(f"{titles[c]:>19}" for c in columns))
    for name in report["auc"]["tuned"]:
        print(f"  {name:40}" + "".join(f"{_figure(report['auc'][c][name]):>19}" for c in columns))
    done = report["filter"]
    print(f"\nFiltered at {done['threshold']}: kept {done['kept']} of {done['records']} records")
    print(
        f"  correct before {_share(done['correct before'])}, after "
        f"{_share(done['correct after'])}; {_share(done['correct ones kept'])} of the correct ones "
        "kept"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def credit(page: Path) -> None:
    """Say in a page whose images it shows, once."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    place = text.rfind("</body>")
    if place >= 0 and openmoji.ATTRIBUTION not in text:
        style = "margin: 0 auto 40px; padding: 0 20px; max-width: 1180px"
        line = f"<p style='{style}'>{openmoji.ATTRIBUTION}</p>\n"
        write_text(page, text[:place] + line + text[place:])


@command
def main() -> None:
    """Sum up the output folders that the flags name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="output folder of the fine-tuned critic's filter")
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--shipped", type=Path, help="output folder of the shipped weights' filter")
    parser.add_argument("--threshold", type=float, default=0.5)
    args = parser.parse_args()
    rows = scored_records(args.output, args.world, "test")
    aucs = {"tuned": auc_table(rows)}
    aucs["control"] = auc_table(scored_records(args.output, args.world, "control"))
    if args.shipped:
        aucs["shipped"] = auc_table(scored_records(args.shipped, args.world, "test"))
    report = {
        "auc": aucs,
        "filter": filter_table(rows, args.threshold),
        "credit": openmoji.ATTRIBUTION,
    }
    path = args.output / "quickstart.json"
    write_text(path, json.dumps(report, indent=2) + "\n")
    credit(args.output / "report.html")
    print_tables(report)
    print(f"\n{args.output / 'report.html'} shows what was kept and why; figures in {path}")
    print(openmoji.ATTRIBUTION)


if __name__ == "__main__":
    sys.exit(main())
