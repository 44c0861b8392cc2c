"""Print published and measured figures of the benchmarks in one table, and compare the runs."""

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lavis.common.command import command
from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import DataError
from lavis.tasks.comparison.joint_accuracy import joint_accuracy, read_results
from lavis.tasks.comparison.paired import compare_figures, read_figures

# benchmark -> (title, metric of its summary)
BENCHMARKS = {
    "vcr_qa": ("VCR Q->A", "accuracy"),
    "vcr_qar": ("VCR QA->R", "accuracy"),
    "vcr_q2ar": ("VCR Q->AR", "joint"),
    "sherlock": ("Sherlock comparison", "pairwise"),
    "visualcomet": ("VisualCOMET Acc@50", "recall"),
    "aokvqa": ("A-OKVQA MC", "accuracy"),
    "snli_ve": ("SNLI-VE", "accuracy"),
    "v7w": ("Visual7W telling", "accuracy"),
    "gar": ("GAR-Bench-VQA", "accuracy"),
}
PAPER = CONFIG_ROOT / "results" / "lskd_main.yaml"
MEASURED = "measured"
Cells = dict[str, dict[str, dict[str, Any]]]  # system -> benchmark -> figures
Folders = dict[tuple[str, str], Path]  # system and benchmark -> run


def parse_run(text: str) -> tuple[str, str, Path]:
    """Return system, benchmark and folder of `[SYSTEM:]BENCHMARK=FOLDER`.

    Raises:
        DataError: another form, or an unknown benchmark.
    """
    name, equals, folder = text.partition("=")
    system, _, benchmark = name.rpartition(":")
    if not equals or benchmark not in BENCHMARKS or benchmark == "vcr_q2ar":
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


def collect(runs: Sequence[str]) -> tuple[Cells, Folders]:
    """Return figures by system and benchmark, Q->AR included, and the runs' folders."""
    cells: Cells = {}
    folders: Folders = {}
    for text in runs:
        system, benchmark, folder = parse_run(text)
        if (system, benchmark) in folders:
            raise DataError(f"{text}: {benchmark} of {system} is given twice")
        folders[system, benchmark] = folder
        cells.setdefault(system, {})[benchmark] = read_run(folder, BENCHMARKS[benchmark][1])
    for system, row in cells.items():
        if {"vcr_qa", "vcr_qar"} <= row.keys():
            results = [read_results(folders[system, name]) for name in ("vcr_qa", "vcr_qar")]
            row["vcr_q2ar"] = joint_accuracy(*results)["both"]
    return cells, folders


def read_paper(path: Path | None) -> dict[str, dict[str, float]]:
    """Return published figures, system -> benchmark -> figure: the paper's, and those of a file.

    Args:
        path: JSON of `{SYSTEM: {BENCHMARK: figure}}`, or of one system without a name.

    Raises:
        DataError: the file cannot be read, or names an unknown benchmark.
    """
    systems: dict[str, dict[str, float]] = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    if path is None:
        return systems
    try:
        node = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    nested = any(isinstance(value, dict) for value in node.values())
    more = node if nested else {path.stem: node}
    for system, figures in more.items():
        unknown = sorted(set(figures) - set(BENCHMARKS))
        if unknown:
            raise DataError(f"{path}, {system}: unknown benchmark {unknown[0]}")
    return {**systems, **more}


def make_table(cells: Cells, paper: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return the header and a row for chance, each published and each measured system."""
    chance: dict[str, str] = {}
    for row in cells.values():
        for benchmark, part in row.items():
            chance.setdefault(benchmark, f"{part['chance']:.2f}")
    table = [["system", *(title for title, _ in BENCHMARKS.values())]]
    if chance:
        table.append(["chance", *(chance.get(benchmark, "") for benchmark in BENCHMARKS)])
    for system, figures in paper.items():
        published = (figures.get(benchmark) for benchmark in BENCHMARKS)
        table.append([f"paper: {system}", *("" if f is None else f"{f:.1f}" for f in published)])
    for system, row in cells.items():
        table.append([system, *(_cell(row.get(benchmark)) for benchmark in BENCHMARKS)])
    return table


def paired_table(cells: Cells, folders: Folders, *, seed: int) -> list[list[str]]:
    """Return a row for every two measured systems and each benchmark that both were run on."""
    table = [["difference", "benchmark", "records", "points", "better", "worse", "sign test p"]]
    for first, second in itertools.combinations(cells, 2):
        for benchmark, (title, metric) in BENCHMARKS.items():
            pair = [folders.get((system, benchmark)) for system in (second, first)]
            if None in pair:
                continue
            figures = [read_figures(folder, metric, seed) for folder in pair if folder]
            result = compare_figures(*figures, seed=seed)
            p = "" if result["p_value"] is None else f"{result['p_value']:.2g}"
            counts = [str(result[name]) for name in ("better", "worse")]
            points = _cell({"value": result["difference"], "interval": result["interval"]})
            table.append([f"{second} - {first}", title, str(result["records"]), points, *counts, p])
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
    """Print the table, and where there are two systems or more their differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="[SYSTEM:]BENCHMARK=FOLDER")
    parser.add_argument("--paper", type=Path, help="JSON of further published figures")
    parser.add_argument("--format", choices=["text", "markdown"], default="text")
    parser.add_argument("--seed", type=int, default=0, help="of tied scores and the bootstrap")
    args = parser.parse_args(argv)
    cells, folders = collect(args.runs)
    print(render(make_table(cells, read_paper(args.paper)), args.format))
    pairs = paired_table(cells, folders, seed=args.seed)
    if len(pairs) > 1:
        print("\n" + render(pairs, args.format))
