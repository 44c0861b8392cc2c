"""From score files to combined scores, kept corpora and the page of disagreements."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.command import at_least, check_outputs, command
from lavis.common.errors import ConfigError
from lavis.common.storage.atomic import write_text
from lavis.tasks.combination.agreement import choose_disagreements, correlations, kept_sets
from lavis.tasks.combination.joining import SharedRows, join
from lavis.tasks.combination.output import CombinedRows, open_data, write_lines
from lavis.tasks.combination.page import make_row, render_critics
from lavis.tasks.combination.rules import RULES, Combination, Rule, combine
from lavis.tasks.combination.score_rows import CONFIG, CriticRun, open_runs
from lavis.tasks.config import ClassificationConfig
from lavis.tasks.filtering.task import MultimodalClassificationTask
from lavis.tasks.rows import Results

SUMMARY, PAGE = "critics.json", "critics.html"


@dataclass(frozen=True)
class CombineOptions:
    """What is made of score files.

    Attributes:
        by: rule of the combined score.
        keep_above: thresholds (None: those of the run whose data set is used).
        any_text: take rows of one number and instance for the same, whatever their texts.
        examples: rows on the page of disagreements.
        options: `a.b=c`, win over that run's config, such as another image folder.
        seed: of the folds.
    """

    by: Rule = "mean"
    keep_above: tuple[float, ...] | None = None
    any_text: bool = False
    examples: int = 60
    options: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        thresholds = self.keep_above or ()
        for value in thresholds:
            if not 0 <= value <= 1:
                raise ConfigError(f"--keep-above holds {value}; scores lie between 0 and 1")
        if len(set(thresholds)) < len(thresholds):
            raise ConfigError("--keep-above: name each threshold once")


def combine_scores(
    files: Sequence[str], output: Path, how: CombineOptions | None = None
) -> dict[str, Any]:
    """Write combined scores and what goes with them; return the content of `critics.json`.

    Where the config of a run lies beside its scores, everything that filtering writes is written:
    `result/`, `kept/`, `rejects.jsonl`, `summary.json`, `report.html`; else the score file alone.
    `critics.json` and `critics.html` say how far the critics agree.

    Args:
        files: `[NAME=]PATH`, folders or score files of two runs or more.

    Raises:
        DataError: the files hold other records, or no rows in common.
        ConfigError: the output folder is that of another run.

    Example:
        >>> how = CombineOptions(by="minimum", keep_above=(0.7,))
        >>> combine_scores(["output/blip2", "qwen=output/vlm"], Path("output/both"), how)["rows"]
        51234
    """
    how = how or CombineOptions()
    runs = open_runs(files)
    base = next((run for run in runs if run.config is not None), runs[0])
    name = base.result
    check_outputs([output / "result" / f"{name}.jsonl"], [run.path for run in runs])
    if (output / CONFIG).exists():
        raise ConfigError(f"{output}: holds the results of a run; name another --output")
    dataset, thresholds = None, list(how.keep_above or ())
    if base.config is not None:
        dataset, own = open_data(base, how.options)
        thresholds = thresholds or own
    config = ClassificationConfig(keep_above=thresholds) if thresholds else ClassificationConfig()
    rows = join(runs, compare_texts=not how.any_text)
    combination = combine(rows, how.by, seed=how.seed)
    threshold = config.keep_above[0]
    chosen = choose_disagreements(rows, threshold, how.examples)
    shown = [place for places in chosen.values() for place in places]
    reader = CombinedRows(base, rows, combination, dataset, shown)
    if dataset is None:
        write_lines(reader, output / "result" / f"{name}.jsonl")
        prefix = ""
    else:
        results = Results(reader, dataset, output, name)
        MultimodalClassificationTask(config).write_results(results)
        prefix = results.prefix
    summary = summarize_critics(runs, rows, combination, how.by, config.keep_above)
    examples = {
        title: [make_row(reader.payloads[p], rows.names, threshold, dataset) for p in places]
        for title, places in chosen.items()
    }
    write_text(output / f"{prefix}{SUMMARY}", json.dumps(summary, indent=1) + "\n")
    write_text(output / f"{prefix}{PAGE}", render_critics(summary, examples, rows, threshold))
    return summary


def summarize_critics(
    runs: Sequence[CriticRun],
    rows: SharedRows,
    combination: Combination,
    by: Rule,
    thresholds: Sequence[float],
) -> dict[str, Any]:
    """Return the content of `critics.json`."""
    return {
        "by": by,
        "critics": [
            {
                "name": run.name,
                "file": str(run.path),
                "rows": rows.rows[run.name],
                "left_out": rows.left_out[run.name],
            }
            for run in runs
        ],
        "rows": len(rows.indices),
        "labelled": len(rows.labelled()),
        "auc": combination.auc,
        "fit": combination.fit,
        "correlations": correlations(rows),
        "kept_sets": kept_sets(rows, combination.scores, thresholds),
    }


@command
def main(argv: list[str] | None = None) -> None:
    """Combine, and print what was made."""
    args = _parse(argv)
    how = CombineOptions(
        by=args.by,
        keep_above=tuple(args.keep_above) if args.keep_above else None,
        any_text=args.any_text,
        examples=args.examples,
        options=tuple(args.options),
        seed=args.seed,
    )
    summary = combine_scores(args.runs, args.output, how)
    print(f"{args.output}: {summary['rows']} rows scored by all, by their {summary['by']}")
    for critic in summary["critics"]:
        print(f"  {critic['name']}: {critic['left_out']} of {critic['rows']} rows left out")
    for pair in summary["correlations"]:
        first, second = pair["critics"]
        values = (_figure(pair[name]) for name in ("spearman", "kendall"))
        print("  {} and {}: Spearman {}, Kendall {}".format(first, second, *values))
    for name, area in summary["auc"].items():
        print(f"  AUC of {name}: {area:.4f}")
    if not (args.output / "kept").exists():
        print(f"  no corpora, report and images: no {CONFIG} of a run lies beside the scores")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Combine and compare the scores of critics.")
    parser.add_argument(
        "runs", nargs="+", metavar="[NAME=]RUN", help="output folder, or a result/*.jsonl"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder that is written")
    parser.add_argument("--by", choices=RULES, default="mean", help="rule of the combined score")
    parser.add_argument(
        "--keep-above", nargs="+", type=float, metavar="SCORE", help="default: the run's own"
    )
    parser.add_argument(
        "--any-text", action="store_true", help="do not compare texts, only row and instance"
    )
    parser.add_argument("--examples", type=at_least(0), default=60, help="rows on the page")
    parser.add_argument("--seed", type=int, default=0, help="of the folds of --by logistic")
    parser.add_argument(
        "--options", nargs="+", default=[], metavar="KEY=VALUE", help="win over the run's config"
    )
    return parser.parse_args(argv)


def _figure(value: float | None) -> str:
    return "none (one score for every row)" if value is None else f"{value:.4f}"
