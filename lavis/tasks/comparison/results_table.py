"""Print the benchmarks' published figures beside measured ones, as text or Markdown."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis.common.command import command
from lavis.common.errors import DataError
from lavis.tasks.comparison.joint_accuracy import joint_accuracy, read_marks

# benchmark -> (title, metric of its summary)
BENCHMARKS = {
    "sherlock": ("Sherlock, comparison", "pairwise"),
    "vcr_qa": ("VCR Q -> A", "accuracy"),
    "vcr_qar": ("VCR QA -> R", "accuracy"),
    "vcr_q2ar": ("VCR Q -> AR", "joint"),
    "visualcomet": ("VisualCOMET, Acc@50", "recall"),
    "aokvqa": ("A-OKVQA, multiple choice", "accuracy"),
    "snli_ve": ("SNLI-VE", "accuracy"),
    "v7w": ("Visual7W, telling", "accuracy"),
}
MEASURED = "measured"
Cells = dict[str, dict[str, dict[str, Any]]]  # system -> benchmark -> figures


def parse_run(text: str) -> tuple[str, str, Path]:
    """Return system, benchmark and folder of `[SYSTEM:]BENCHMARK=FOLDER`.

    Raises:
        DataError: another form, or an unknown benchmark.
    """
    name, found, folder = text.partition("=")
    system, _, benchmark = name.rpartition(":")
    if not found or benchmark not in BENCHMARKS or benchmark == "vcr_q2ar":
        known = ", ".join(key for key in BENCHMARKS if key != "vcr_q2ar")
        raise DataError(f"{text}: write [SYSTEM:]BENCHMARK=FOLDER with a benchmark of {known}")
    return system or MEASURED, benchmark, Path(folder)


def read_run(folder: Path, metric: str) -> dict[str, Any]:
    """Return a run's figures of a metric, of `test` if several; raises `DataError` if none."""
    files = sorted(folder.glob("summary.json")) or sorted(folder.glob("*_summary.json"))
    if len(files) != 1:
        raise DataError(f"{folder}: one summary.json was expected, found {len(files)}")
    summary = json.loads(files[0].read_text(encoding="utf-8"))
    if metric not in summary.get("metrics", {}):
        has = ", ".join(summary.get("metrics", {})) or "none"
        raise DataError(f"{files[0]}: has no {metric}; it has: {has}")
    return summary["metrics"][metric]


def collect(runs: Sequence[str]) -> Cells:
    """Return figures by system and benchmark, Q -> AR included."""
    cells: Cells = {}
    folders: dict[tuple[str, str], Path] = {}
    for text in runs:
        system, benchmark, folder = parse_run(text)
        if (system, benchmark) in folders:
            raise DataError(f"{text}: {benchmark} of {system} is given twice")
        folders[system, benchmark] = folder
        cells.setdefault(system, {})[benchmark] = read_run(folder, BENCHMARKS[benchmark][1])
    for system, row in cells.items():
        if {"vcr_qa", "vcr_qar"} <= row.keys():
            marks = [read_marks(folders[system, name]) for name in ("vcr_qa", "vcr_qar")]
            row["vcr_q2ar"] = joint_accuracy(*marks)["both"]
    return cells


def read_paper(path: Path | None) -> dict[str, dict[str, float]]:
    """Return published figures: column -> benchmark -> figure; an empty column without a file."""
    if path is None:
        return {"paper": {}}
    try:
        node = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    nested = any(isinstance(value, dict) for value in node.values())
    columns = {f"paper, {k}": v for k, v in node.items()} if nested else {"paper": node}
    for column, figures in columns.items():
        unknown = sorted(set(figures) - set(BENCHMARKS))
        if unknown:
            raise DataError(f"{path}, {column}: unknown benchmark {unknown[0]}")
    return columns


def make_table(cells: Cells, paper: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return the header and a row for each benchmark."""
    table = [["benchmark", "chance", *paper, *cells]]
    for benchmark, (title, _) in BENCHMARKS.items():
        found = [row[benchmark] for row in cells.values() if benchmark in row]
        figures = [column.get(benchmark) for column in paper.values()]
        if not found and all(figure is None for figure in figures):
            continue
        row = [title, f"{found[0]['chance']:.2f}" if found else ""]
        row += ["" if figure is None else f"{figure:.2f}" for figure in figures]
        row += [_cell(system.get(benchmark)) for system in cells.values()]
        table.append(row)
    return table


def _cell(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return ""
    spread = " [{:.2f}, {:.2f}]".format(*part["interval"]) if part["interval"] else ""
    return f"{part['value']:.2f}{spread}"


def render(table: Sequence[Sequence[str]], form: str) -> str:
    """Return the table as aligned text or as Markdown."""
    if form == "markdown":
        rule = ["---", *["---:"] * (len(table[0]) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in [table[0], rule, *table[1:]])
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


@command
def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="[SYSTEM:]BENCHMARK=FOLDER")
    parser.add_argument("--paper", type=Path, help="JSON of published figures")
    parser.add_argument("--format", choices=["text", "markdown"], default="text")
    args = parser.parse_args(argv)
    print(render(make_table(collect(args.runs), read_paper(args.paper)), args.format))
