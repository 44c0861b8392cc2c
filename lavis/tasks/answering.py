"""Trains models that write about images; validates by the loss of the target text, and by answers.

N texts of one unit; the target of row n is `text_output` n.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lavis.common.errors import ConfigError
from lavis.common.registry import tasks
from lavis.tasks.base import NumberedRow, UnitBatch
from lavis.tasks.config import AnsweringConfig, PretrainConfig
from lavis.tasks.rows import Results, Tally
from lavis.tasks.scoring import ScoringTask, counts

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.common.dist import World
    from lavis.datasets.base import RecordDataset

_RATIONALE = re.compile(r"\brationale:", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


class AnswerModel(Protocol):
    """A model that writes text about images."""

    def answer_losses(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss_sum` and `tokens` of each target text, `(N,)`."""
        ...

    def generate(self, samples: Mapping[str, Any], **options: Any) -> list[str]:
        """Return N written texts."""
        ...


@dataclass
class AnswerTally(Tally):
    """Also sums loss, tokens and right answers over the rows."""

    loss: float = 0.0
    tokens: int = 0
    exact: int = 0
    right: int = 0
    answered: int = 0

    def add(self, payload: dict[str, Any]) -> None:
        """Add a row."""
        self.loss += payload["loss"] * payload["tokens"]
        self.tokens += payload["tokens"]
        if "answer" in payload:
            target, answer = payload["text_output"], payload["answer"]
            self.answered += 1
            self.exact += _plain(answer) == _plain(target)
            self.right += answer_part(answer) == answer_part(target)


@tasks.register("image_text_pretrain")
class ImageTextPretrainTask(ScoringTask[AnswerModel]):
    """Training on `text_input` -> `text_output`; the best weights have the least loss per token."""

    config_class: ClassVar[type] = PretrainConfig

    def prepare(self, model: AnswerModel, dataset: RecordDataset, world: World) -> None:
        """Raise `ConfigError` for a model that writes no text."""
        if not hasattr(model, "answer_losses"):
            raise ConfigError(
                f"run.task: {type(model).__name__} writes no text; use blip2_t5, blip2_opt, "
                "blip2_llm or vlm_student, or task comparison"
            )

    def predict(self, model: AnswerModel, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `loss_sum` and `tokens` of each row, `(N,)`."""
        return self.take_notes(batch, dict(model.answer_losses(batch.samples)))

    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return text, the data set's fields, `loss` (a token's mean) and `tokens` of each row."""
        rows = []
        sums = outputs["loss_sum"].double().cpu().tolist()
        tokens = outputs["tokens"].cpu().tolist()
        written = batch.samples.get("written", [None] * len(sums))
        notes = batch.notes or [{}] * len(sums)
        for row, total, count, answer, note in zip(
            batch.rows, sums, tokens, written, notes, strict=True
        ):
            results: dict[str, Any] = {"loss": total / max(count, 1), "tokens": count}
            if answer is not None:
                results["answer"] = answer
            rows.append(self.scored_row(row, {"text": row.text}, [total], results, [note]))
        return rows

    def collect(self, results: Results) -> AnswerTally:
        """Write `result/<name>.json` and `rejects.jsonl`."""
        table = AnswerTally()
        for _, payload in results.scored(table, [".json"]):
            table.add(payload)
        return table

    def summarize(self, table: AnswerTally, results: Results) -> dict[str, Any]:
        """Return counts, and under `metrics` the loss per token, perplexity and right answers."""
        summary: dict[str, Any] = {"name": results.name, **table.describe()}
        if self.config.report_metric and table.tokens:
            loss = table.loss / table.tokens
            perplexity = math.exp(min(loss, 700))
            metrics = {"loss": loss, "perplexity": perplexity, "tokens": table.tokens}
            if table.answered:
                metrics["exact_match"] = table.exact / table.answered
                metrics["answer_accuracy"] = table.right / table.answered
            summary["metrics"] = metrics
        return summary

    @staticmethod
    def overall(summary: dict[str, Any]) -> dict[str, Any]:
        """Return figures and counts; `agg_metrics` is minus the loss, so that more is better."""
        metrics = summary.get("metrics", {})
        return {"agg_metrics": -metrics["loss"] if metrics else 0.0, **metrics, **counts(summary)}


@tasks.register("visual_answering")
class VisualAnsweringTask(ImageTextPretrainTask):
    """Answers are generated too; the best weights give the most right answers.

    An answer is right when the part before `Rationale:`, else the first sentence, is the target,
    apart from case, blanks and a full stop. `exact_match` compares the whole text.
    """

    config_class: ClassVar[type] = AnsweringConfig
    config: AnsweringConfig

    def prepare(self, model: AnswerModel, dataset: RecordDataset, world: World) -> None:
        """Raise `ConfigError` for a model that generates no answers."""
        super().prepare(model, dataset, world)
        if not hasattr(model, "generate"):
            raise ConfigError(
                f"run.task: {type(model).__name__} generates no answers; use vlm_student, or task "
                "image_text_pretrain"
            )

    def predict(self, model: AnswerModel, batch: UnitBatch) -> dict[str, Tensor]:
        """See the base class; the answers are added to the samples as `written`."""
        batch.samples["written"] = model.generate(
            batch.samples,
            num_beams=self.config.num_beams,
            max_length=self.config.max_len,
            min_length=self.config.min_len,
        )
        return super().predict(model, batch)

    @staticmethod
    def overall(summary: dict[str, Any]) -> dict[str, Any]:
        """Return figures and counts; `agg_metrics` is the share of right answers."""
        metrics = ImageTextPretrainTask.overall(summary)
        return {**metrics, "agg_metrics": metrics.get("answer_accuracy", 0.0)}


def answer_part(text: str) -> str:
    """Return the part before `Rationale:`, else the first sentence, for comparison."""
    parts = _RATIONALE.split(text, maxsplit=1)
    answer = parts[0] if len(parts) > 1 else _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
    return _plain(answer)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(". ")
