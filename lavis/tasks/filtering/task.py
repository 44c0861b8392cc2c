"""Scores texts about images with a critic, and filters a corpus by the scores.

N texts of one unit; `prediction` `(N, 2)` holds P(reject), P(accept).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from lavis.common.errors import DataError
from lavis.common.registry import tasks
from lavis.common.storage.atomic import write_text
from lavis.tasks.base import NumberedRow, UnitBatch
from lavis.tasks.config import ClassificationConfig
from lavis.tasks.filtering.plots import histogram_png, precision_recall_png
from lavis.tasks.filtering.report import (
    choose_examples,
    make_example,
    render_report,
    trace_rows,
)
from lavis.tasks.filtering.results import RowTable, write_rows
from lavis.tasks.filtering.summary import calibration_report, summarize
from lavis.tasks.metrics import Calibrator, fit_calibrator
from lavis.tasks.rows import Results
from lavis.tasks.scoring import ScoringTask, counts

if TYPE_CHECKING:
    from torch import Tensor

CALIBRATION = "calibration.json"
DEFAULT_THRESHOLD = 0.5  # of the report's examples where the run names none


class Critic(Protocol):
    """A model that accepts or rejects texts about images."""

    def predict(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return `prediction` and `logits`, `(N, 2)`, and `notes` on the texts, if there are."""
        ...


@tasks.register("multimodal_classification")
class MultimodalClassificationTask(ScoringTask[Critic]):
    """Filtering, and training or evaluating the critic that filters.

    Example:
        Filter a corpus from Python, as `evaluate.py` does:

        ```python
        config = load_config(
            "lavis/projects/blip2/eval/laion/laion_sample_critic_ft_filtering.yaml",
            ["run.output_dir=output/filtered", "run.keep_above=[0.8]"],
            mode="evaluate",
        )
        metrics = build_runner(config).evaluate()["test"]  # of lavis.common.cli
        # output/filtered/kept/test_epochbest_filtered_threshold_0.8.jsonl holds the corpus
        ```
    """

    config_class: ClassVar[type] = ClassificationConfig
    free_options = ScoringTask.free_options | {"keep_above", "calibrate", "calibrate_on"}
    config: ClassificationConfig

    def predict(self, model: Critic, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `prediction` and `logits`, `(N, 2)`."""
        return self.take_notes(batch, model.predict(batch.samples))

    def scored_rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[NumberedRow]:
        """Return the released record of every row: text, the data set's fields, prediction, score.

        A score that is not a number makes its row a reject.
        """
        scores = outputs["prediction"][:, 1].float().cpu().tolist()
        predictions = (outputs["logits"][:, 1] > outputs["logits"][:, 0]).int().cpu().tolist()
        notes = batch.notes or [{}] * len(batch.rows)
        return [
            self.scored_row(
                row, {"text": row.text}, [score], {"prediction": prediction, "score": score}, [note]
            )
            for row, score, prediction, note in zip(
                batch.rows, scores, predictions, notes, strict=True
            )
        ]

    def collect(self, results: Results) -> RowTable:
        """Write score files, and where `results.full` filtered corpora and rejects."""
        return write_rows(results, self.config.keep_above, self._load_calibrator(results))

    def summarize(self, table: RowTable, results: Results) -> dict[str, Any]:
        """Return the result of `lavis.tasks.filtering.summary.summarize`, and of calibration."""
        config = self.config
        summary = summarize(
            table, results.name, config.keep_above, with_metrics=config.report_metric
        )
        if config.calibrate is not None:
            summary["calibration"] = self._calibration(table, results)
        return summary

    def pages(
        self, table: RowTable, summary: dict[str, Any], results: Results
    ) -> dict[str, bytes | str]:
        """Return `score_histogram.png`, `pr_curve.png` if there are labels, `report.html`."""
        keep_above = self.config.keep_above
        threshold = keep_above[0] if keep_above else DEFAULT_THRESHOLD
        charts = _charts(table, summary, keep_above)
        chosen = choose_examples(table, threshold, self.config.report_examples)
        examples = {
            title: [make_example(results.dataset, table, row, threshold) for row in rows]
            for title, rows in chosen.items()
        }
        pngs = {title: png for title, (_, png) in charts.items()}
        traces = trace_rows(results.model, results.dataset, table, self.config.report_traces)
        page = render_report(summary, examples, pngs, threshold, traces)
        return {**dict(charts.values()), "report.html": page}

    @staticmethod
    def overall(summary: dict[str, Any]) -> dict[str, Any]:
        """Return `agg_metrics` (accuracy as released; 0.0 without labels), other metrics, counts.

        Precision and recall are not swapped, as they were in the released code.
        """
        metrics = summary.get("metrics", {})
        plain = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
        return {"agg_metrics": metrics.get("acc", 0.0), **plain, **counts(summary)}

    def _load_calibrator(self, results: Results) -> Calibrator | None:
        """Return the calibrator, None for the split that fits it; `DataError` if unfitted."""
        config, split = self.config, results.dataset.split
        if config.calibrate is None or split == config.calibrate_on:
            return None
        path = results.folder / CALIBRATION
        if not path.is_file():
            raise DataError(
                f"{path}: run.calibrate is {config.calibrate}, and the labelled split "
                f"'{config.calibrate_on}' was not evaluated before '{split}'; use "
                f"run.test_splits=[{config.calibrate_on},{split}], or name another split in "
                f"run.calibrate_on"
            )
        form = json.loads(path.read_text())
        return Calibrator(**{**form["calibrator"], "knots": tuple(form["calibrator"]["knots"])})

    def _calibration(self, table: RowTable, results: Results) -> dict[str, Any]:
        """Fit and save the calibrator, or apply it; return the summary's part on it."""
        method, path = self.config.calibrate, results.folder / CALIBRATION
        assert method is not None
        if results.dataset.split != self.config.calibrate_on:
            fitted_on = json.loads(path.read_text())["fitted_on"]
            about = {"method": method, "fitted_on": fitted_on, "applied": True}
            return about | calibration_report(table, table.final)
        rows = table.labelled()
        try:
            fitted = fit_calibrator(method, table.scores[rows], table.labels[rows])
        except ValueError as error:
            message = f"{results.name}: {error}; name another split in run.calibrate_on"
            raise DataError(message) from None
        form = {"fitted_on": results.name, "labelled": len(rows), "calibrator": fitted.to_json()}
        write_text(path, json.dumps(form, indent=1) + "\n")
        calibrated = np.full(len(table.scores), np.nan)
        calibrated[rows] = fitted(table.scores[rows])
        about = {"method": method, "fitted_on": results.name, "applied": False}
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
