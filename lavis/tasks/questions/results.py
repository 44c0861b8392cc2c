"""Result files of a benchmark: one line a question, a table of columns and rules, a page."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.storage.atomic import write_text
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.released import ReleasedFiles
from lavis.tasks.questions.report import TITLES, effect, write_page
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
        marks: rule -> column -> a list of marks by prompt for each question.
        golds: answers, for the share of the most frequent one.
        shown: of each question, whether an image shows something of it.
        answered: of each question, whether it has an answer.
    """

    marks: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    golds: list[str] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)

    def add(self, payload: dict[str, Any]) -> None:
        """Take a question in."""
        for column, rules in payload["marks"].items():
            for rule, marks in rules.items():
                self.marks.setdefault(rule, {}).setdefault(column, []).append(marks)
        self.golds.append(json.dumps(payload["gold"]))
        self.answered.append(payload["gold"] != [])
        scores = [p["score"] for one in payload.get("pictures", []) for p in one]
        scored = any(score is not None and score > 0 for score in scores)
        self.shown.append(payload.get("shown", scored))


def write_results(
    output: Results, config: VisualQuestionsConfig, store: ImageStore | None
) -> dict[str, Any]:
    """Write all files of a split; see `VisualQuestionsTask.write_results`."""
    groups: dict[str, Group] = {}
    tally = Tally()
    counts = tally.counts
    if config.pictures.num_images and config.pictures.skip_when_certain is not None:
        counts["without_pictures"] = 0
    examples = ExampleRows(config.report_examples, TITLES, effect)
    dataset: Any = output.dataset
    released = ReleasedFiles(dataset.config.benchmark, config.tokenizer, config.pictures.num_images)
    for row, payload in output.scored(tally, [".jsonl"]):
        if payload.get("pictures") == []:
            counts["without_pictures"] += 1
        if payload.get("withheld"):
            counts["withheld_pictures"] += payload["withheld"]
            counts["with_withheld_pictures"] += 1
        groups.setdefault(payload["group"], Group()).add(payload)
        examples.offer(row, payload)
        released.add(payload)
    results = summarize(groups, dataset, config, counts)
    text = json.dumps({"name": output.name, **results}, indent=1)
    write_text(output.path("results.json"), text + "\n")
    released.write(output.folder / output.prefix.rstrip("_"), results)
    if output.full:
        page = {"name": output.name, **results}
        write_page(output.path("report.html"), page, examples, store, parts=PARTS)
    for line in table(results):
        logger.info("%s", line)
    return _metrics(results, counts)


def summarize(
    groups: dict[str, Group],
    dataset: BenchmarkDataset,
    config: VisualQuestionsConfig,
    counts: Counter[str],
) -> dict[str, Any]:
    """Return the content of `results.json`.

    Returns:
        `benchmark`, `protocol`, `main_rule`, `rules` with what each is, counts, and `groups`: name
        -> `majority` and `rules`: rule -> column -> accuracies, and `vs_text` for columns other
        than `text`, and `vs_shuffled` for `images` where that control was run. `mean_of_groups`
        averages groups that are no control (`..._swapped`). Where images show something of some
        questions only (the generator says so, or a score is above 0), `shown` and `not_shown` list
        them apart; where some questions have no answer, `has_answer` and `no_answer` do.
    """
    done = {name: _group(group, config) for name, group in groups.items()}
    plain = [name for name in done if not is_control(name)]
    rules = list(next(iter(done.values()))["rules"]) if done else []
    whole = _joined(list(groups.values()))
    results: dict[str, Any] = {
        "benchmark": dataset.config.benchmark,
        "protocol": dataset.config.protocol,
        "num_images": config.pictures.num_images,
        "pictures_per": config.pictures_per,
        "best_of": config.samples,
        "main_rule": _main_rule(config, rules),
        "rules": {
            rule: dict(zip(("what", "protocol"), _note(rule, dataset), strict=True))
            for rule in rules
        },
        **counts,
        "groups": done,
    }
    if len(plain) > 1:
        results["mean_of_groups"] = {
            rule: {
                column: float(
                    np.mean([done[name]["rules"][rule][column]["mean"] for name in plain])
                )
                for column in done[plain[0]]["rules"][rule]
            }
            for rule in rules
        }
    if len(groups) > 1:
        results["all"] = _group(whole, config)
    if any(whole.shown) and not all(whole.shown):
        results["shown"] = _group(_part(whole, whole.shown, True), config)
        results["not_shown"] = _group(_part(whole, whole.shown, False), config)
    if any(whole.answered) and not all(whole.answered):
        results["has_answer"] = _group(_part(whole, whole.answered, True), config)
        results["no_answer"] = _group(_part(whole, whole.answered, False), config)
    return results


def is_control(group: str) -> bool:
    """Tell whether a group asks the questions of another one the other way round."""
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


def _group(group: Group, config: VisualQuestionsConfig) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for rule, columns in group.marks.items():
        arrays = {column: _array(marks) for column, marks in columns.items()}
        rules[rule] = {}
        for column in [c for c in config.shown if c in arrays]:
            values = describe(arrays[column], config.resamples, config.seed)
            if column != "text":
                values["vs_text"] = compare(
                    arrays[column], arrays["text"], config.resamples, config.seed
                )
            if column == "pictures" and "shuffled" in arrays:
                values["vs_shuffled"] = compare(
                    arrays[column], arrays["shuffled"], config.resamples, config.seed
                )
            rules[rule][column] = values
    return {"questions": len(group.golds), "majority": majority(group.golds), "rules": rules}


def _array(marks: list[list[float]]) -> np.ndarray:
    """Return marks `(Q, P)`; where groups differ in prompts, their means `(Q, 1)`."""
    if len({len(one) for one in marks}) == 1:
        return np.array(marks, dtype=np.float64)
    return np.array([[np.mean(one)] for one in marks])


def _joined(groups: list[Group]) -> Group:
    whole = Group()
    for group in groups:
        for rule, columns in group.marks.items():
            for column, marks in columns.items():
                whole.marks.setdefault(rule, {}).setdefault(column, []).extend(marks)
        whole.golds += group.golds
        whole.shown += group.shown
        whole.answered += group.answered
    return whole


def _part(group: Group, values: list[bool], wanted: bool) -> Group:
    """Return the questions of a group whose value is the wanted one."""
    keep = [place for place, value in enumerate(values) if value == wanted]
    marks = {
        rule: {column: [marks[place] for place in keep] for column, marks in columns.items()}
        for rule, columns in group.marks.items()
    }
    golds, shown, answered = (
        [listed[place] for place in keep] for listed in (group.golds, group.shown, group.answered)
    )
    return Group(marks, golds, shown, answered)  # type: ignore[arg-type]


def _metrics(results: dict[str, Any], counts: Counter[str]) -> dict[str, Any]:
    """Return each column's figure by the main rule, the mean of groups where there are more."""
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
    parts = dict(results["groups"])
    parts |= {name: results[name] for name in PARTS if name in results}
    lines = []
    for name, part in parts.items():
        for rule, columns in part["rules"].items():
            shown = ", ".join(f"{c} {_figure(v)}" for c, v in columns.items())
            lines.append(f"{name} ({part['questions']}), {rule}: {shown}")
    return lines


def _figure(values: dict[str, Any]) -> str:
    spread = f" +- {values['std']:.1f}" if values["std"] is not None else ""
    return f"{values['mean']:.1f}{spread}"
