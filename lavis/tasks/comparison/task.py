"""Ranks the candidate texts of each image by a model's matching score or likelihood.

A row is one image with C candidates; a unit has N candidates in all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import ConfigError
from lavis.common.registry import tasks
from lavis.tasks.base import NumberedRow, UnitBatch
from lavis.tasks.comparison.lettered import Lettered
from lavis.tasks.comparison.ranking import NEEDS, Judgements, ranks, references
from lavis.tasks.comparison.report import TITLES, kind_of, render_page
from lavis.tasks.config import ComparisonConfig
from lavis.tasks.report import ExampleRows
from lavis.tasks.rows import Results, Tally
from lavis.tasks.scoring import ScoringTask, counts

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.common.dist import World
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.rows import Row

# value of run.score -> the model's method it needs
METHODS = {
    "itm": "predict",
    "itc": "score",
    "both": "score",
    "likelihood": "answer_losses",
    "letters": "letters",
}


@dataclass(kw_only=True)
class Comparisons(Tally):
    """Figures of a data set's rows by metric, and by group; `examples` are rows for the page."""

    examples: ExampleRows
    metrics: dict[str, Judgements] = field(default_factory=dict)
    groups: dict[str, dict[str, Judgements]] = field(default_factory=dict)

    def judge(self, payload: dict[str, Any], seed: int) -> dict[str, float]:
        """Add a row to the figures; return its own, less those of chance."""
        texts, key = payload["texts"], payload.get("instance")
        places = ranks(payload["match_scores"], seed, key)
        margins = {}
        for reference in references(payload, len(texts)):
            parts = [self.metrics]
            if payload.get("group") is not None:
                parts.append(self.groups.setdefault(str(payload["group"]), {}))
            for part in parts:
                judged = part.setdefault(reference.metric, Judgements())
                judged.add(reference, texts, places, seed=seed, key=key)
            margins[reference.metric] = judged.values[-1] - judged.chance[-1]
        return margins


@tasks.register("comparison")
class ComparisonTask(ScoringTask[Any]):
    """Multiple choice (`label`), agreement with ratings (`scores`), recall of truths (`truths`).

    The released scripts name this task and lack it; `ComparisonConfig.score` says what ranks, and
    `METHODS` which method the model needs for it.
    """

    config_class: ClassVar[type] = ComparisonConfig
    free_options = ScoringTask.free_options | {"resamples"}
    config: ComparisonConfig

    def prepare(self, model: Any, dataset: RecordDataset, world: World) -> None:
        """Raise `ConfigError` for a model that lacks the method of `run.score`."""
        has = [name for name, method in METHODS.items() if hasattr(model, method)]
        if self.config.score not in has:
            raise ConfigError(
                f"run.score: {type(model).__name__} cannot score by {self.config.score}; use "
                f"{' or '.join(has) or 'another model'}"
            )

    def predict(self, model: Any, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `match` `(N,)`, one number per candidate, rows after each other.

        With `circular` also `choices`, the candidate chosen in each rotation: rows after each
        other, as many for each as it has candidates.
        """
        if self.config.score == "itm":
            outputs = self.take_notes(batch, model.predict(batch.samples))
            return {"match": outputs["logits"][:, 1]}
        if self.config.score == "likelihood":
            asked = {**batch.samples, **questions_and_answers(batch.rows)}
            losses = self.take_notes(batch, model.answer_losses(asked))
            return {"match": -losses["loss_sum"] / losses["tokens"]}
        if self.config.score == "letters":
            questions = Lettered.of(batch, circular=self.config.circular)
            outputs = model.letters({**batch.samples, **questions.samples})
            batch.notes = questions.notes(outputs.get("notes") or [])
            return questions.scores(outputs["log_probs"])
        scores = model.score(batch.samples)
        if self.config.score == "itc":
            return {"match": scores["itc"]}
        return {"match": scores["itm"] + scores["itc"]}

    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return candidates, the data set's fields, `match_scores` and `prediction` of each row."""
        rows = []
        values = iter(outputs["match"].float().cpu().tolist())
        notes = iter(batch.notes)
        choices = iter(outputs["choices"].cpu().tolist() if "choices" in outputs else [])
        for row in batch.rows:
            texts = list(row.all_texts)
            scores = list(itertools.islice(values, len(texts)))
            results: dict[str, Any] = {"match_scores": scores}
            if all(map(math.isfinite, scores)):
                places = ranks(scores, self.config.tie_seed, row.fields.get("instance"))
                results["prediction"] = int(places.argmax())
            if "choices" in outputs:
                results["choices"] = list(itertools.islice(choices, len(texts)))
            own = list(itertools.islice(notes, len(texts)))
            rows.append(self.scored_row(row, {"texts": texts}, scores, results, own))
        return rows

    def collect(self, results: Results) -> Comparisons:
        """Write `result/<name>.json` and `.jsonl`, and `rejects.jsonl`."""
        config = self.config
        examples = ExampleRows(config.report_examples if results.full else 0, TITLES, kind_of)
        table = Comparisons(examples=examples)
        for row, payload in results.scored(table, [".json", ".jsonl"]):
            margins = table.judge(payload, config.tie_seed) if config.report_metric else {}
            examples.offer(row, {**payload, "margins": margins})
        return table

    def summarize(self, table: Comparisons, results: Results) -> dict[str, Any]:
        """Return counts, and `metrics` in percent with intervals and baselines, also by group."""
        config = self.config

        def described(parts: dict[str, Judgements]) -> dict[str, Any]:
            return {
                metric: parts[metric].describe(resamples=config.resamples, seed=config.tie_seed)
                for metric in parts
            }

        summary = {"name": results.name, "score": config.score, **table.describe()}
        if table.metrics:
            summary["metrics"] = described(
                {m: table.metrics[m] for m in NEEDS if m in table.metrics}
            )
        if len(table.groups) > 1:
            summary["by_group"] = {
                group: described(parts) for group, parts in sorted(table.groups.items())
            }
        return summary

    def pages(
        self, table: Comparisons, summary: dict[str, Any], results: Results
    ) -> dict[str, bytes | str]:
        """Return `report.html`."""
        return {"report.html": render_page(summary, table.examples.by_title(), results.dataset)}

    @staticmethod
    def overall(summary: dict[str, Any]) -> dict[str, Any]:
        """Return figures and counts.

        Returns:
            `accuracy` and `recall` from 0 to 1 and `pairwise` from -100 to 100, as published;
            `agg_metrics` is the first of accuracy, pairwise and recall that there is, else 0.0.
        """
        figures = {
            metric: part["value"] / (1 if metric == "pairwise" else 100)
            for metric, part in summary.get("metrics", {}).items()
        }
        return {"agg_metrics": next(iter(figures.values()), 0.0), **figures, **counts(summary)}


def questions_and_answers(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return `text_input` and `text_output` of every candidate, rows after each other.

    Raises:
        ConfigError: the data set does not separate them.
    """
    if not all("answers" in row.targets for row in rows):
        raise ConfigError(
            "run.score: likelihood needs records with `text_input` and `choices`, as those of "
            "datasets.unified_contrastive"
        )
    pairs = [(row.targets["question"], text) for row in rows for text in row.targets["answers"]]
    return {
        "text_input": [question for question, _ in pairs],
        "text_output": [answer for _, answer in pairs],
    }
