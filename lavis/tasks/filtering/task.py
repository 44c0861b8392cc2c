"""Scores texts about images with a critic, and filters a corpus by the scores.

N texts of one unit; `prediction` `(N, 2)` holds P(reject), P(accept).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lavis.common.errors import DataError
from lavis.common.registry import tasks
from lavis.common.storage.atomic import write_text
from lavis.tasks.base import RowReader, UnitBatch
from lavis.tasks.config import ClassificationConfig
from lavis.tasks.filtering.plots import histogram_png, precision_recall_png
from lavis.tasks.filtering.results import RowTable, write_rows
from lavis.tasks.filtering.summary import calibration_report, summarize
from lavis.tasks.metrics import Calibrator, fit_calibrator
from lavis.tasks.report import choose_examples, make_example, render_report
from lavis.tasks.scoring import ScoringTask

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.base import RecordDataset

CALIBRATION = "calibration.json"
DEFAULT_THRESHOLD = 0.5  # of the report's examples where the run names none


@tasks.register("multimodal_classification")
class MultimodalClassificationTask(ScoringTask):
    """Filtering, and training or evaluating the critic that filters."""

    config_class: ClassVar[type] = ClassificationConfig
    free_options = ScoringTask.free_options | {"keep_above", "calibrate", "calibrate_on"}

    def __init__(self, config: ClassificationConfig) -> None:
        super().__init__(config)
        self.config: ClassificationConfig = config

    def predict(self, model: Any, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `prediction` and `logits`, `(N, 2)`; nothing where no row can be scored."""
        return model.predict(batch.samples) if batch.rows else {}

    def rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[tuple[int, dict]]:
        """Return the released record of every row: text, the data set's fields, prediction, score.

        A score that is not a number makes its row a reject.
        """
        rows = list(batch.rejects)
        if not batch.rows:
            return rows
        scores = outputs["prediction"][:, 1].float().cpu().tolist()
        predictions = (outputs["logits"][:, 1] > outputs["logits"][:, 0]).int().cpu().tolist()
        for row, score, prediction in zip(batch.rows, scores, predictions, strict=True):
            found = {"prediction": prediction, "score": score}
            rows.append(self.scored_row(row, {"text": row.text}, [score], found))
        return rows

    def collect(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        full: bool,
    ) -> RowTable:
        """Write score files, and where `full` filtered corpora and rejects."""
        return write_rows(
            reader,
            dataset,
            output_dir,
            name,
            thresholds=self.config.keep_above,
            calibrator=self._load_calibrator(output_dir, dataset.split),
            full=full,
        )

    def summarize(
        self, table: RowTable, dataset: RecordDataset, output_dir: Path, name: str
    ) -> dict[str, Any]:
        """Return what `lavis.tasks.filtering.summary.summarize` does, and what calibration did."""
        summary = summarize(
            table,
            name=name,
            output_dir=output_dir,
            thresholds=self.config.keep_above,
            with_metrics=self.config.report_metric,
        )
        if self.config.calibrate is not None:
            calibrator = self._load_calibrator(output_dir, dataset.split)
            summary["calibration"] = self._calibration(table, calibrator, output_dir, name)
        return summary

    def pages(
        self, table: RowTable, summary: dict[str, Any], dataset: RecordDataset
    ) -> dict[str, bytes | str]:
        """Return `score_histogram.png`, `pr_curve.png` where there are labels, `report.html`."""
        keep_above = self.config.keep_above
        threshold = keep_above[0] if keep_above else DEFAULT_THRESHOLD
        charts = _charts(table, summary, keep_above)
        chosen = choose_examples(table, threshold, self.config.report_examples)
        examples = {
            title: [make_example(dataset, table, row, threshold) for row in rows]
            for title, rows in chosen.items()
        }
        pngs = {title: png for title, (_, png) in charts.items()}
        page = render_report(summary, examples, pngs, threshold)
        return {**dict(charts.values()), "report.html": page}

    def overall(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return `agg_metrics` (accuracy as released; 0.0 without labels), other metrics, counts.

        Precision and recall are not swapped, as they were in the released code.
        """
        metrics = summary.get("metrics", {})
        plain = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
        counts = {name: summary[name] for name in ("rows", "scored", "rejected")}
        return {"agg_metrics": metrics.get("acc", 0.0), **plain, **counts}

    def _load_calibrator(self, output_dir: Path, split: str) -> Calibrator | None:
        """Return the fitted calibrator, None for the split it is fitted on.

        Raises:
            DataError: it is wanted and was never fitted.
        """
        if self.config.calibrate is None or split == self.config.calibrate_on:
            return None
        path = output_dir / CALIBRATION
        if not path.is_file():
            raise DataError(
                f"{path}: run.calibrate is {self.config.calibrate}, and the labelled split "
                f"'{self.config.calibrate_on}' was not evaluated before '{split}'; use "
                f"run.test_splits=[{self.config.calibrate_on},{split}], or name another split in "
                f"run.calibrate_on"
            )
        form = json.loads(path.read_text())
        return Calibrator(**{**form["calibrator"], "knots": tuple(form["calibrator"]["knots"])})

    def _calibration(
        self, table: RowTable, calibrator: Calibrator | None, output_dir: Path, name: str
    ) -> dict[str, Any]:
        """Fit and save, or report on, the calibrator; return what the summary says of it."""
        method = self.config.calibrate
        assert method is not None
        if calibrator is not None:
            form = json.loads((output_dir / CALIBRATION).read_text())
            about = {"method": method, "fitted_on": form["fitted_on"], "applied": True}
            return about | calibration_report(table, table.final)
        rows = table.labelled()
        try:
            fitted = fit_calibrator(method, table.scores[rows], table.labels[rows])
        except ValueError as error:
            raise DataError(f"{name}: {error}; name another split in run.calibrate_on") from None
        form = {"fitted_on": name, "labelled": len(rows), "calibrator": fitted.to_json()}
        write_text(output_dir / CALIBRATION, json.dumps(form, indent=1) + "\n")
        calibrated = np.full(len(table.scores), np.nan)
        calibrated[rows] = fitted(table.scores[rows])
        about = {"method": method, "fitted_on": name, "applied": False}
        return about | calibration_report(table, calibrated)


def _charts(
    table: RowTable, summary: dict[str, Any], thresholds: list[float]
) -> dict[str, tuple[str, bytes]]:
    """Return title -> (file name, PNG)."""
    rows = table.scored()
    if not len(rows):
        return {}
    with_labels = "metrics" in summary
    labels = table.labels[rows] if with_labels else None
    histogram = histogram_png(table.final[rows], labels, thresholds)
    charts = {"Distribution of scores": ("score_histogram.png", histogram)}
    if with_labels and summary["metrics"]["auc"] is not None:
        rows = table.labelled()
        curve = precision_recall_png(table.final[rows], table.labels[rows], thresholds)
        charts["Precision and recall"] = ("pr_curve.png", curve)
    return charts
