"""Shared by tasks that score texts about images: payloads, and the order of the result files."""

from __future__ import annotations

import json
import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lavis.common.storage.atomic import write_bytes
from lavis.datasets.files.json_values import finite
from lavis.tasks.base import BaseTask, ModelT, NumberedRow, UnitBatch
from lavis.tasks.rows import Results

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.rows import Row

logger = logging.getLogger(__name__)


class ScoringTask(BaseTask[ModelT]):
    """Scores become rows; rows become files per row, one summary, pages and metrics."""

    @staticmethod
    def take_notes(batch: UnitBatch, outputs: dict[str, Any]) -> dict[str, Tensor]:
        """Return outputs without the model's `notes` on each text, which the batch keeps."""
        batch.notes = outputs.pop("notes", [])
        batch.again = batch.again or any(note.get("again") for note in batch.notes)
        return outputs

    @staticmethod
    def scored_row(
        row: Row,
        texts: Mapping[str, Any],
        scores: Sequence[float],
        results: Mapping[str, Any],
        notes: Sequence[Mapping[str, Any]] = (),
    ) -> NumberedRow:
        """Return a row's number and payload: its texts, the data set's fields, the results.

        A score that is not a number makes the row a reject, as does a note with a `reject`.

        Args:
            notes: of the model on the row's texts; those on a single text are columns of the row.
        """
        for note in notes:
            if "reject" in note:
                return row.index, {"reject": note["reject"]}
        bad = [score for score in scores if not math.isfinite(score)]
        if bad:
            return row.index, {"reject": f"score is not a number: {bad[0]}"}
        columns = dict(notes[0]) if len(notes) == 1 else {}
        columns.pop("again", None)  # of the unit, see `take_notes`
        return row.index, {**texts, **finite(row.fields), **results, **columns}

    def write_results(self, results: Results) -> dict[str, Any]:
        """Write score files, summary and pages, and return metrics.

        `summary.json`, `rejects.jsonl` and the files of `pages` start with `<split>_` for splits
        other than `test`. Metrics are also a line of `evaluate.txt`, as released.
        """
        table = self.collect(results)
        summary = self.summarize(table, results)
        if results.full:
            files: dict[str, bytes | str] = {"summary.json": json.dumps(summary, indent=1) + "\n"}
            files |= self.pages(table, summary, results)
            for file, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                write_bytes(results.path(file), data)
        metrics = self.overall(summary)
        if "metrics" in summary:
            with open(results.folder / "evaluate.txt", "a", encoding="utf-8") as lines:
                lines.write(json.dumps({results.dataset.split: metrics}) + "\n")
        logger.info(
            "%s: %d rows scored, %d set aside %s",
            results.name,
            summary["scored"],
            summary["rejected"],
            summary["rejected_by_reason"] or "",
        )
        return metrics

    @abstractmethod
    def collect(self, results: Results) -> Any:
        """Write the files with a line per row; return the summary's input."""

    @abstractmethod
    def summarize(self, table: Any, results: Results) -> dict[str, Any]:
        """Return the content of `summary.json`.

        Returns:
            At least `name`, `rows`, `scored`, `rejected`, `rejected_by_reason`, and `metrics` where
            there are labels to compare with.
        """

    def pages(
        self, table: Any, summary: dict[str, Any], results: Results
    ) -> dict[str, bytes | str]:
        """Return file name -> content of charts and pages."""
        return {}

    @staticmethod
    @abstractmethod
    def overall(summary: dict[str, Any]) -> dict[str, Any]:
        """Return plain numbers of the whole data set, `agg_metrics` among them."""


def counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row counts of every summary and of the metrics."""
    return {name: summary[name] for name in ("rows", "scored", "rejected")}
