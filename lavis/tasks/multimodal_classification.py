"""Scores texts about pictures with a critic, and filters a corpus by the scores.

N texts of one unit; `prediction` `(N, 2)` holds P(reject), P(accept).
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lavis.common.errors import DataError
from lavis.common.files import write_atomically
from lavis.common.registry import tasks
from lavis.tasks.base import BaseTask, RowReader, UnitBatch
from lavis.tasks.config import ClassificationConfig
from lavis.tasks.filtering import RowTable, split_prefix, write_rows
from lavis.tasks.metrics import Calibrator, fit_calibrator
from lavis.tasks.plots import histogram_png, precision_recall_png
from lavis.tasks.report import choose_examples, make_example, render_report
from lavis.tasks.summary import calibration_report, summarize

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.base import RecordDataset

logger = logging.getLogger(__name__)

CALIBRATION = "calibration.json"
DEFAULT_THRESHOLD = 0.5  # of the report's examples where the run names none


@tasks.register("multimodal_classification")
class MultimodalClassificationTask(BaseTask):
    """Filtering, and training or evaluating the critic that filters."""

    config_class: ClassVar[type] = ClassificationConfig

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
            if math.isfinite(score):
                payload = {"text": row.text, **_finite(row.fields)}
                payload |= {"prediction": prediction, "score": score}
            else:
                payload = {"reject": f"score is not a number: {score}"}
            rows.append((row.index, payload))
        return rows

    def finish(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        report: bool = True,
    ) -> dict[str, Any]:
        """Write score files, filtered corpora, rejects, summary, charts and the HTML page.

        Fixed names (`summary.json`, `rejects.jsonl`, `report.html`, `score_histogram.png`,
        `pr_curve.png`) start with `<split>_` for splits other than `test`.

        Returns:
            `agg_metrics` (accuracy as released; 0.0 without labels), the other overall metrics,
            and the counts of rows.
        """
        output_dir = Path(output_dir)
        calibrator = self._load_calibrator(output_dir, dataset.split)
        table = write_rows(
            reader,
            dataset,
            output_dir,
            name,
            thresholds=self.config.keep_above,
            calibrator=calibrator,
            full=report,
        )
        summary = summarize(
            table,
            name=name,
            output_dir=output_dir,
            thresholds=self.config.keep_above,
            with_metrics=self.config.report_metric,
        )
        if self.config.calibrate is not None:
            summary["calibration"] = self._calibration(table, calibrator, output_dir, name)
        if report:
            self._write_report(table, summary, dataset, output_dir, name)
        metrics = _overall(summary)
        if "metrics" in summary:
            _append_evaluate_txt(output_dir, dataset.split, metrics)
        logger.info(
            "%s: %d rows scored, %d set aside %s",
            name,
            summary["scored"],
            summary["rejected"],
            summary["rejected_by_reason"] or "",
        )
        return metrics

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
        write_atomically(output_dir / CALIBRATION, json.dumps(form, indent=1) + "\n")
        calibrated = np.full(len(table.scores), np.nan)
        calibrated[rows] = fitted(table.scores[rows])
        about = {"method": method, "fitted_on": name, "applied": False}
        return about | calibration_report(table, calibrated)

    def _write_report(
        self,
        table: RowTable,
        summary: dict[str, Any],
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
    ) -> None:
        prefix = split_prefix(name)
        keep_above = self.config.keep_above
        threshold = keep_above[0] if keep_above else DEFAULT_THRESHOLD
        text = json.dumps(summary, indent=1)
        write_atomically(output_dir / f"{prefix}summary.json", text + "\n")
        charts = _charts(table, summary, keep_above)
        for title, (file, png) in charts.items():
            logger.debug("%s: %s", title, file)
            write_atomically(output_dir / f"{prefix}{file}", png)
        chosen = choose_examples(table, threshold, self.config.report_examples)
        examples = {
            title: [make_example(dataset, table, row, threshold) for row in rows]
            for title, rows in chosen.items()
        }
        pngs = {title: png for title, (_, png) in charts.items()}
        page = render_report(summary, examples, pngs, threshold)
        write_atomically(output_dir / f"{prefix}report.html", page)


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


def _overall(summary: dict[str, Any]) -> dict[str, Any]:
    metrics = summary.get("metrics", {})
    plain = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    counts = {name: summary[name] for name in ("rows", "scored", "rejected")}
    return {"agg_metrics": metrics.get("acc", 0.0), **plain, **counts}


def _append_evaluate_txt(output_dir: Path, split: str, metrics: dict[str, Any]) -> None:
    """Append the released line `{"<split>": {...}}`; precision and recall are not swapped."""
    with open(output_dir / "evaluate.txt", "a", encoding="utf-8") as file:
        file.write(json.dumps({split: metrics}) + "\n")


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with NaN and infinities as null, which JSON has no numbers for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }
