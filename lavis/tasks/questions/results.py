"""Result files of a benchmark: one line a question, a table of columns and rules, a page."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lavis.common.storage.atomic import write_json, write_text
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.released import ReleasedFiles
from lavis.tasks.questions.report import TITLES, effect, render_page
from lavis.tasks.report import ExampleRows
from lavis.tasks.rows import Results, Tally
from lavis.tasks.statistics import compare, describe, majority

if TYPE_CHECKING:
    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.generators.store import ImageStore

logger = logging.getLogger(__name__)

# rule -> (what it is, released as is or corrected by us)
RULE_NOTES = {
    "first_token": ("first token of a candidate, also capitalised; its text answers", "released"),
    "candidate_likelihood": ("likeliest candidate, all its tokens read", "corrected"),
    "sequence_loss": ("smallest mean loss of context and option", "released"),
    "option_likelihood": ("likeliest option given the context", "corrected"),
    "option_likelihood_per_character": ("the same, per character of the option", "corrected"),
    "exact_match": ("equal to an accepted answer once normalised", "released"),
    "f1": ("words shared with an accepted answer", "released"),
}  # fmt: skip
# the same of a benchmark's corrected protocol
CORRECTED_NOTES = {
    ("squad", "exact_match"): "official SQuAD v2 `exact`; 'Not in background' is the empty answer, "
    "no threshold is tuned",
    ("squad", "f1"): "official SQuAD v2 `f1`, likewise",
    ("quac", "exact_match"): "equal to an annotator's answer, or declined where there is none",
    ("quac", "f1"): "official QuAC F1: against all annotators but one, averaged; declining is "
    "right where half of them found no answer",
}
PARTS = ("all", "shown", "not_shown", "has_answer", "no_answer")


@dataclass
class Group:
    """Rows of one group.

    Attributes:
        correct: rule -> column -> for each question, numbers from 0 (wrong) to 1 by prompt.
        golds: answers, for the share of the most frequent one.
        shown: by question, whether an image shows something of it.
        answered: by question, whether it has an answer.
    """

    correct: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    golds: list[str] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)

    def add(self, payload: dict[str, Any]) -> None:
        """Add a question."""
        for column, rules in payload["marks"].items():
            for rule, correct in rules.items():
                self.correct.setdefault(rule, {}).setdefault(column, []).append(correct)
        self.golds.append(json.dumps(payload["gold"]))
        self.answered.append(payload["gold"] != [])
        scores = [p["score"] for one in payload.get("pictures", []) for p in one]
        scored = any(score is not None and score > 0 for score in scores)
        self.shown.append(payload.get("shown", scored))

    def extend(self, other: Group) -> None:
        """Add the questions of another group."""
        for rule, columns in other.correct.items():
            for column, correct in columns.items():
                self.correct.setdefault(rule, {}).setdefault(column, []).extend(correct)
        self.golds += other.golds
        self.shown += other.shown
        self.answered += other.answered

    def part(self, keep: list[bool]) -> Group:
        """Return the questions that are kept."""
        correct = {
            rule: {column: list(compress(rows, keep)) for column, rows in columns.items()}
            for rule, columns in self.correct.items()
        }
        lists = (self.golds, self.shown, self.answered)
        golds, shown, answered = (list(compress(values, keep)) for values in lists)
        return Group(correct, golds, shown, answered)  # type: ignore[arg-type]


def write_results(
    results: Results, config: VisualQuestionsConfig, store: ImageStore | None
) -> dict[str, Any]:
    """Write all files of a split; see `VisualQuestionsTask.write_results`."""
    groups: dict[str, Group] = {}
    tally = Tally()
    counts = tally.counts
    if config.images.num_images and config.images.skip_when_certain is not None:
        counts["without_pictures"] = 0
    examples = ExampleRows(config.report_examples, TITLES, effect)
    dataset = cast("BenchmarkDataset", results.dataset)
    released = ReleasedFiles(dataset.config.benchmark, config.tokenizer, config.images.num_images)
    for row, payload in results.scored(tally, [".jsonl"]):
        if payload.get("pictures") == []:
            counts["without_pictures"] += 1
        if payload.get("withheld"):
            counts["withheld_pictures"] += payload["withheld"]
            counts["with_withheld_pictures"] += 1
        groups.setdefault(payload["group"], Group()).add(payload)
        examples.offer(row, payload)
        released.add(payload)
    summary = summarize(groups, dataset, config, counts)
    named = {"name": results.name, **summary}
    write_json(results.path("results.json"), named)
    released.write(results.folder / results.prefix.rstrip("_"), summary)
    if results.full:
        page = render_page(named, examples.by_title(), store, parts=PARTS)
        write_text(results.path("report.html"), page)
    for line in table(summary):
        logger.info("%s", line)
    return _metrics(summary, counts)


def summarize(
    groups: dict[str, Group],
    dataset: BenchmarkDataset,
    config: VisualQuestionsConfig,
    counts: Counter[str],
) -> dict[str, Any]:
    """Return the content of `results.json`.

    Returns:
        `benchmark`, `protocol`, `main_rule`, `rules` with descriptions, counts, and `groups`: name
        -> `majority` and `rules`: rule -> column -> accuracies, and `vs_text` for columns other
        than `text`, and `vs_shuffled` for `pictures` if that control was run. `mean_of_groups`
        averages groups that are no control (`..._swapped`). If images show something of some
        questions only (the generator says so, or a score is above 0), `shown` and `not_shown` list
        them apart; if some questions have no answer, `has_answer` and `no_answer` do.
    """
    described = {name: _describe(group, config) for name, group in groups.items()}
    plain = [name for name in described if not is_control(name)]
    rules = list(next(iter(described.values()))["rules"]) if described else []
    results: dict[str, Any] = {
        "benchmark": dataset.config.benchmark,
        "protocol": dataset.config.protocol,
        "num_images": config.images.num_images,
        "pictures_per": config.images_per,
        "best_of": config.samples,
        "main_rule": _main_rule(config, rules),
        "rules": {
            rule: dict(zip(("what", "protocol"), _note(rule, dataset), strict=True))
            for rule in rules
        },
        **counts,
        "groups": described,
    }
    if len(plain) > 1:
        results["mean_of_groups"] = {
            rule: {
                column: float(
                    np.mean([described[name]["rules"][rule][column]["mean"] for name in plain])
                )
                for column in described[plain[0]]["rules"][rule]
            }
            for rule in rules
        }
    whole = Group()
    for group in groups.values():
        whole.extend(group)
    if len(groups) > 1:
        results["all"] = _describe(whole, config)
    for names, flags in ((PARTS[1:3], whole.shown), (PARTS[3:], whole.answered)):
        if any(flags) and not all(flags):
            results[names[0]] = _describe(whole.part(flags), config)
            results[names[1]] = _describe(whole.part([not flag for flag in flags]), config)
    return results


def is_control(group: str) -> bool:
    """Return whether a group has the questions of another one reversed."""
    return group.endswith("_swapped")


def _note(rule: str, dataset: BenchmarkDataset) -> tuple[str, str]:
    what, protocol = RULE_NOTES[rule]
    if dataset.kind != "generate":
        return what, protocol
    protocol = dataset.config.protocol
    if protocol == "corrected":
        what = CORRECTED_NOTES.get((dataset.config.benchmark, rule), what)
    return what, protocol


def _main_rule(config: VisualQuestionsConfig, rules: list[str]) -> str | None:
    if config.main_rule in rules:
        return config.main_rule
    if config.main_rule is not None:
        logger.warning("run.main_rule: '%s' is none of %s", config.main_rule, ", ".join(rules))
    return rules[0] if rules else None


def _describe(group: Group, config: VisualQuestionsConfig) -> dict[str, Any]:
    draws = (config.resamples, config.seed)
    rules: dict[str, Any] = {}
    for rule, columns in group.correct.items():
        arrays = {column: _array(rows) for column, rows in columns.items()}
        rules[rule] = {}
        for column in [c for c in config.shown if c in arrays]:
            values = describe(arrays[column], *draws)
            if column != "text":
                values["vs_text"] = compare(arrays[column], arrays["text"], *draws)
            if column == "pictures" and "shuffled" in arrays:
                values["vs_shuffled"] = compare(arrays[column], arrays["shuffled"], *draws)
            rules[rule][column] = values
    return {"questions": len(group.golds), "majority": majority(group.golds), "rules": rules}


def _array(rows: list[list[float]]) -> np.ndarray:
    """Return numbers `(Q, P)`; if groups differ in prompts, their means `(Q, 1)`."""
    if len({len(one) for one in rows}) == 1:
        return np.array(rows, dtype=np.float64)
    return np.array([[np.mean(one)] for one in rows])


def _metrics(results: dict[str, Any], counts: Counter[str]) -> dict[str, Any]:
    """Return each column's figure by the main rule, the mean of groups if there are more."""
    rule = results["main_rule"]
    if rule is None:
        return {"agg_metrics": 0.0, **counts}
    if "mean_of_groups" in results:
        figures = results["mean_of_groups"][rule]
    else:
        groups = results["groups"]
        group = groups[min(groups, key=is_control)]
        figures = {column: values["mean"] for column, values in group["rules"][rule].items()}
    main = figures.get("pictures", figures["text"]) / 100
    return {"agg_metrics": main, **{f"{c}_accuracy": v for c, v in figures.items()}, **counts}


def table(results: dict[str, Any]) -> list[str]:
    """Return the results as lines of text: a line for each group and rule."""
    parts = results["groups"] | {name: results[name] for name in PARTS if name in results}
    return [
        f"{name} ({part['questions']}), {rule}: "
        + ", ".join(f"{column} {_figure(values)}" for column, values in columns.items())
        for name, part in parts.items()
        for rule, columns in part["rules"].items()
    ]


def _figure(values: dict[str, Any]) -> str:
    spread = f" +- {values['std']:.1f}" if values["std"] is not None else ""
    return f"{values['mean']:.1f}{spread}"
