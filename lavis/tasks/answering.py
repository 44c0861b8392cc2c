"""Trains what writes about images; validates by the loss of the wanted text, and by answers.

N texts of one unit; row n wants `text_output` n.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import ConfigError
from lavis.common.registry import tasks
from lavis.tasks.base import RowReader, UnitBatch
from lavis.tasks.config import AnsweringConfig, PretrainConfig
from lavis.tasks.rows import Tally, scored_rows
from lavis.tasks.scoring import ScoringTask

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.base import RecordDataset

_RATIONALE = re.compile(r"\brationale:", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass
class Written(Tally):
    """Also sums over the rows: loss and tokens, and right answers."""

    loss: float = 0.0
    tokens: int = 0
    exact: int = 0
    right: int = 0
    answered: int = 0


@tasks.register("image_text_pretrain")
class ImageTextPretrainTask(ScoringTask):
    """Training on `text_input` -> `text_output`; the best weights have the least loss per token."""

    config_class: ClassVar[type] = PretrainConfig

    def prepare(self, model: Any, dataset: RecordDataset, world: Any) -> None:
        """Refuse a model that writes nothing.

        Raises:
            ConfigError: it does not.
        """
        if not hasattr(model, "answer_losses"):
            raise ConfigError(
                f"run.task: {type(model).__name__} writes no text; use blip2_t5, blip2_opt or "
                "blip2_llm, or task comparison"
            )

    def predict(self, model: Any, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `loss_sum` and `tokens` of each row, `(N,)`."""
        return model.answer_losses(batch.samples) if batch.rows else {}

    def rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[tuple[int, dict]]:
        """Return text, the data set's fields, `loss` (a token's mean) and `tokens` of each row."""
        rows = list(batch.rejects)
        if not batch.rows:
            return rows
        sums = outputs["loss_sum"].double().cpu().tolist()
        counts = outputs["tokens"].cpu().tolist()
        written = batch.samples.get("written", [None] * len(sums))
        for row, total, count, answer in zip(batch.rows, sums, counts, written, strict=True):
            found: dict[str, Any] = {"loss": total / max(count, 1), "tokens": count}
            if answer is not None:
                found["answer"] = answer
            rows.append(self.scored_row(row, {"text": row.text}, [total], found))
        return rows

    def collect(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        full: bool,
    ) -> Written:
        """Write `result/<name>.json` and `rejects.jsonl`."""
        table = Written()
        rows = scored_rows(reader, dataset, output_dir, name, endings=[".json"], tally=table)
        for _, payload in rows:
            _add(table, payload)
        return table

    def summarize(
        self, table: Written, dataset: RecordDataset, output_dir: Path, name: str
    ) -> dict[str, Any]:
        """Return counts, and under `metrics` the loss per token, perplexity and right answers."""
        summary: dict[str, Any] = {"name": name, **table.describe()}
        if self.config.report_metric and table.tokens:
            loss = table.loss / table.tokens
            found = {"loss": loss, "perplexity": math.exp(min(loss, 700)), "tokens": table.tokens}
            if table.answered:
                found["exact_match"] = table.exact / table.answered
                found["answer_accuracy"] = table.right / table.answered
            summary["metrics"] = found
        return summary

    def pages(
        self, table: Written, summary: dict[str, Any], dataset: RecordDataset
    ) -> dict[str, bytes | str]:
        """Return none."""
        return {}

    def overall(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return figures and counts; `agg_metrics` is minus the loss, so that more is better."""
        found = summary.get("metrics", {})
        counts = {name: summary[name] for name in ("rows", "scored", "rejected")}
        return {"agg_metrics": -found["loss"] if found else 0.0, **found, **counts}


@tasks.register("visual_answering")
class VisualAnsweringTask(ImageTextPretrainTask):
    """Answers are written too; the best weights give the most answers that are right.

    An answer is right when what stands before `Rationale:`, else the first sentence, is the wanted
    one, apart from case, blanks and a full stop. `exact_match` compares all that was written.
    """

    config_class: ClassVar[type] = AnsweringConfig

    def __init__(self, config: AnsweringConfig) -> None:
        super().__init__(config)
        self.config: AnsweringConfig = config

    def identity(self) -> dict[str, Any]:
        """Return how answers are searched."""
        return {key: getattr(self.config, key) for key in ("num_beams", "max_len", "min_len")}

    def predict(self, model: Any, batch: UnitBatch) -> dict[str, Tensor]:
        """See the base class; the answers join the samples as `written`."""
        if not batch.rows:
            return {}
        batch.samples["written"] = model.generate(
            batch.samples,
            num_beams=self.config.num_beams,
            max_length=self.config.max_len,
            min_length=self.config.min_len,
        )
        return super().predict(model, batch)

    def overall(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return figures and counts; `agg_metrics` is the share of right answers."""
        found = super().overall(summary)
        return {**found, "agg_metrics": found.get("answer_accuracy", 0.0)}


def answer_part(text: str) -> str:
    """Return what stands before `Rationale:`, else the first sentence, for comparison."""
    parts = _RATIONALE.split(text, maxsplit=1)
    answer = parts[0] if len(parts) > 1 else _SENTENCE_END.split(text.strip(), maxsplit=1)[0]
    return _plain(answer)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(". ")


def _add(table: Written, payload: dict[str, Any]) -> None:
    table.loss += payload["loss"] * payload["tokens"]
    table.tokens += payload["tokens"]
    if "answer" in payload:
        wanted, answer = payload["text_output"], payload["answer"]
        table.answered += 1
        table.exact += _plain(answer) == _plain(wanted)
        table.right += answer_part(answer) == answer_part(wanted)
