"""What scoring tasks share: rows of numbers, and the files and metrics at the end."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from lavis.tasks.config import PretrainConfig
from lavis.tasks.scoring import ScoringTask, finite

ROW = SimpleNamespace(index=7, fields={"a": float("nan"), "b": 2, "c": "text", "d": 0.5})


def test_a_row_joins_what_was_said_the_fields_and_what_was_found():
    found = ScoringTask.scored_row(ROW, {"text": "x", "b": 1}, [0.5, 1.0], {"score": 0.5})
    assert found == (7, {"text": "x", "b": 2, "a": None, "c": "text", "d": 0.5, "score": 0.5})
    assert list(found[1]) == ["text", "b", "a", "c", "d", "score"]


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_score_that_is_no_number_makes_a_reject(bad):
    index, payload = ScoringTask.scored_row(ROW, {}, [0.5, float(bad), float("nan")], {})
    assert (index, payload) == (7, {"reject": f"score is not a number: {bad}"})


def test_notes_on_a_single_text_are_columns_and_a_reject_wins():
    notes = [{"mass": 0.9, "again": True}]
    found = ScoringTask.scored_row(ROW, {}, [0.5], {"score": 0.5}, notes)[1]
    assert found["mass"] == 0.9 and "again" not in found and notes == [{"mass": 0.9, "again": True}]
    assert "mass" not in ScoringTask.scored_row(ROW, {}, [0.5], {}, notes * 2)[1]
    rejected = ScoringTask.scored_row(ROW, {}, [0.5], {}, [*notes, {"reject": "x: y"}])[1]
    assert rejected == {"reject": "x: y"}


def test_json_has_no_infinities():
    fields = {"a": float("inf"), "b": -float("inf"), "c": 1.5, "d": "nan", "e": None, "f": 3}
    assert finite(fields) == {"a": None, "b": None, "c": 1.5, "d": "nan", "e": None, "f": 3}


class CountingTask(ScoringTask):
    """Remembers what it was asked for."""

    labelled = True

    def predict(self, *_):
        raise NotImplementedError

    scored_rows = predict

    def collect(self, results):
        return {"name": results.name, "full": results.full}

    def summarize(self, table, results):
        counts = {"rows": 3, "scored": 2, "rejected": 1}
        summary = {"name": results.name, "dataset": results.dataset.split, **counts}
        summary |= {"rejected_by_reason": {"broken": 1}, "full": table["full"]}
        return summary | ({"metrics": {"accuracy": 0.5}} if self.labelled else {})

    def pages(self, table, summary, results):
        return {"report.html": f"{table['name']} of {results.dataset.split}: {summary['rows']}"}

    @staticmethod
    def overall(summary):
        return {"agg_metrics": 0.25, "rows": summary["rows"]}


@pytest.mark.parametrize(("split", "prefix"), [("test", ""), ("val", "val_")])
def test_files_and_metrics_at_the_end(split, prefix, tmp_path, caplog):
    task = CountingTask(PretrainConfig())
    dataset = SimpleNamespace(split=split)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        found = task.finish(object(), dataset, tmp_path, f"{split}_epochbest")
    assert found == {"agg_metrics": 0.25, "rows": 3}
    text = (tmp_path / f"{prefix}summary.json").read_text()
    assert text.endswith("}\n") and text.count("\n") > 5  # to be read by people
    assert json.loads(text) == {
        "name": f"{split}_epochbest",
        "dataset": split,
        "rows": 3,
        "scored": 2,
        "rejected": 1,
        "rejected_by_reason": {"broken": 1},
        "full": True,
        "metrics": {"accuracy": 0.5},
    }
    page = (tmp_path / f"{prefix}report.html").read_text()
    assert page == f"{split}_epochbest of {split}: 3"
    lines = (tmp_path / "evaluate.txt").read_text().splitlines()
    assert list(map(json.loads, lines)) == [{split: found}] * 2  # a line a run, as released
    assert f"{split}_epochbest: 2 rows scored, 1 set aside {{'broken': 1}}" in caplog.text


def test_while_training_only_the_line_is_written(tmp_path):
    task = CountingTask(PretrainConfig())
    task.finish(object(), SimpleNamespace(split="val"), tmp_path, "val_epoch0", report=False)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluate.txt"]


def test_without_labels_there_is_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(CountingTask, "labelled", False)
    task = CountingTask(PretrainConfig())
    task.finish(object(), SimpleNamespace(split="test"), tmp_path, "test_epochbest")
    assert not (tmp_path / "evaluate.txt").exists() and (tmp_path / "summary.json").exists()
