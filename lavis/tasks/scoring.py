"""What tasks share that give texts about images scores: the rows, and the order of the ending."""

from __future__ import annotations

import json
import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis.common.storage.atomic import write_bytes
from lavis.datasets.files.json_values import finite
from lavis.tasks.base import BaseTask, RowReader
from lavis.tasks.rows import split_prefix

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset
    from lavis.datasets.rows import Row

logger = logging.getLogger(__name__)


class ScoringTask(BaseTask):
    """Scores become rows; rows become files per row, one summary, pages and metrics."""

    @staticmethod
    def scored_row(
        row: Row, said: Mapping[str, Any], scores: Sequence[float], found: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Return a row's number and payload: what was said, the data set's fields, what was found.

        A score that is not a number makes the row a reject.
        """
        bad = [score for score in scores if not math.isfinite(score)]
        if bad:
            return row.index, {"reject": f"score is not a number: {bad[0]}"}
        return row.index, {**said, **finite(row.fields), **found}

    def finish(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        report: bool = True,
    ) -> dict[str, Any]:
        """Write score files, summary and pages, and return metrics.

        `summary.json`, `rejects.jsonl` and what `pages` gives start with `<split>_` for splits
        other than `test`. Metrics are also a line of `evaluate.txt`, as released.
        """
        output_dir = Path(output_dir)
        table = self.collect(reader, dataset, output_dir, name, full=report)
        summary = self.summarize(table, dataset, output_dir, name)
        if report:
            text = json.dumps(summary, indent=1) + "\n"
            files: dict[str, bytes | str] = {"summary.json": text}
            files |= self.pages(table, summary, dataset)
            for file, content in files.items():
                data = content.encode() if isinstance(content, str) else content
                write_bytes(output_dir / f"{split_prefix(name)}{file}", data)
        metrics = self.overall(summary)
        if "metrics" in summary:
            with open(output_dir / "evaluate.txt", "a", encoding="utf-8") as lines:
                lines.write(json.dumps({dataset.split: metrics}) + "\n")
        logger.info(
            "%s: %d rows scored, %d set aside %s",
            name,
            summary["scored"],
            summary["rejected"],
            summary["rejected_by_reason"] or "",
        )
        return metrics

    @abstractmethod
    def collect(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        full: bool,
    ) -> Any:
        """Write the files that hold a line a row; return what the summary needs of them.

        Args:
            full: also those that readers look at; off while training.
        """

    @abstractmethod
    def summarize(
        self, table: Any, dataset: RecordDataset, output_dir: Path, name: str
    ) -> dict[str, Any]:
        """Return the content of `summary.json`.

        Returns:
            At least `name`, `rows`, `scored`, `rejected`, `rejected_by_reason`, and `metrics` where
            there are labels to compare with.
        """

    @abstractmethod
    def pages(
        self, table: Any, summary: dict[str, Any], dataset: RecordDataset
    ) -> dict[str, bytes | str]:
        """Return file name -> content of charts and pages."""

    @abstractmethod
    def overall(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return plain numbers of the whole data set, `agg_metrics` among them."""
