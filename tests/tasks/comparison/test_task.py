"""Comparison: candidates of one image ranked, files, groups and the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from page_checks import check_report

from lavis.common.errors import ConfigError
from lavis.datasets.rows import Row
from lavis.tasks.comparison.report import split_question
from lavis.tasks.comparison.task import ComparisonTask
from lavis.tasks.config import ComparisonConfig

ROWS = [
    (("1 0", "3 0", "2 9"), {"label": 1, "group": "who"}),
    (("5 0", "4 9"), {"label": 1, "scores": [[0.1, 0.9], [2, 1]], "group": "why"}),
    (("7 0",), {"label": 0}),
    (("1 0", "nan 0"), {"label": 0}),
    (("2 0", "1 3", "3 0"), {"truths": [0, 1, 1], "group": "why"}),
]


@pytest.fixture
def choices(list_dataset):
    """Rows of several candidates; each text is its ITM logit and its ITC score."""

    class Choices(list_dataset):
        def row(self, index, rng=None):
            texts, fields = ROWS[index]
            several = texts if len(texts) > 1 else None
            fields = {"instance": f"r{index}", **fields}
            targets = {"question": f"{texts[0]} ?", "answers": list(texts)}
            return Row(
                index, f"image {index % 2}", texts[0], fields, texts=several, targets=targets
            )

        def collate(self, rows, images, image_index):
            counts = [len(row.all_texts) for row in rows]
            samples = super().collate(rows, images, list(np.repeat(image_index, counts)))
            return {**samples, "text_input": [text for row in rows for text in row.all_texts]}

    return Choices([("", "")] * len(ROWS))


class Matcher:
    def predict(self, samples):
        logits = torch.tensor([[0.0, float(text.split()[0])] for text in samples["text_input"]])
        return {"logits": logits}


class ContrastiveMatcher(Matcher):
    def score(self, samples):
        itc = torch.tensor([float(text.split()[1]) for text in samples["text_input"]])
        return {"itm": self.predict(samples)["logits"][:, 1], "itc": itc}


class Writer:
    """Loses what the text says on every one of two tokens."""

    def answer_losses(self, samples):
        assert all(text.endswith(" ?") for text in samples["text_input"])
        losses = torch.tensor([2 * float(text.split()[0]) for text in samples["text_output"]])
        return {"loss_sum": losses, "tokens": torch.full_like(losses, 2)}


def test_figures_of_each_kind_of_record(choices, run, tmp_path):
    metrics = run(ComparisonTask(ComparisonConfig()), choices, Matcher(), tmp_path)
    assert metrics == {
        "agg_metrics": 0.5,
        "accuracy": 0.5,  # rows 0 and 1; row 2 has nothing to compare, row 3 no score
        "pairwise": 0.0,  # wrong for one rater, right for the other
        "recall": 0.5,  # of the two best, 2 and 0, one is true
        "rows": 5,
        "scored": 4,
        "rejected": 1,
    }
    rows = json.loads((tmp_path / "result" / "test_epochbest.json").read_text())
    assert rows[0] == {
        "texts": ["1 0", "3 0", "2 9"],
        "instance": "r0",
        "label": 1,
        "group": "who",
        "match_scores": [1.0, 3.0, 2.0],
        "prediction": 1,
    }
    lines = (tmp_path / "result" / "test_epochbest.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    reject = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert reject["row"] == 3 and reject["reason"] == "score is not a number: nan"


def test_summary_and_page(choices, run, tmp_path):
    run(ComparisonTask(ComparisonConfig()), choices, Matcher(), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["score"] == "itm"
    assert summary["rejected_by_reason"] == {"score is not a number": 1}
    accuracy = summary["metrics"]["accuracy"]
    assert (accuracy["records"], accuracy["value"]) == (2, 50.0)
    assert accuracy["chance"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)
    assert accuracy["baselines"]["position"] == 100.0
    assert summary["by_group"]["who"]["accuracy"]["value"] == 100.0
    assert set(summary["by_group"]["why"]) == {"accuracy", "pairwise", "recall"}
    page = (tmp_path / "report.html").read_text()
    assert "Wrong, or not better than chance" in page and "data:image/jpeg" in page
    assert "people: 0.9, 1" in page
    line = json.loads((tmp_path / "evaluate.txt").read_text())
    assert line["test"]["accuracy"] == 0.5


def test_while_training_only_score_files_are_written(choices, run, tmp_path):
    run(ComparisonTask(ComparisonConfig()), choices, Matcher(), tmp_path, report=False)
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("score", "model", "predictions"),
    [
        ("itc", ContrastiveMatcher(), [2, 1, 0, 1]),
        ("both", ContrastiveMatcher(), [2, 1, 0, 1]),
        ("likelihood", Writer(), [0, 1, 0, 1]),
    ],
)
def test_other_scores_can_rank(choices, run, tmp_path, score, model, predictions):
    run(ComparisonTask(ComparisonConfig(score=score)), choices, model, tmp_path)
    lines = (tmp_path / "result" / "test_epochbest.jsonl").read_text().splitlines()
    found = {json.loads(line)["instance"]: json.loads(line)["prediction"] for line in lines}
    assert [found[f"r{n}"] for n in (0, 1, 2, 4)] == predictions


def test_a_model_that_cannot_score_so_is_refused_before_anything_is_scored(choices):
    task = ComparisonTask(ComparisonConfig(score="itc"))
    with pytest.raises(ConfigError, match=r"run\.score: Matcher cannot score by itc; use itm"):
        task.prepare(Matcher(), choices, None)
    with pytest.raises(ConfigError, match="Writer cannot score by itc; use likelihood"):
        task.prepare(Writer(), choices, None)
    task.prepare(ContrastiveMatcher(), choices, None)


def test_metrics_can_be_left_out(choices, run, tmp_path):
    config = ComparisonConfig(report_metric=False)
    metrics = run(ComparisonTask(config), choices, Matcher(), tmp_path)
    assert metrics == {"agg_metrics": 0.0, "rows": 5, "scored": 4, "rejected": 1}


def test_equal_scores_are_ordered_by_the_seed(choices, run, tmp_path, monkeypatch):
    tied = (("3 0", "3 0", "3 0"), {"label": 1})
    monkeypatch.setitem(globals(), "ROWS", [tied, *ROWS[1:]])
    orders = set()
    for seed in range(12):
        config = ComparisonConfig(tie_seed=seed)
        run(ComparisonTask(config), choices, Matcher(), tmp_path / str(seed))
        rows = json.loads((tmp_path / str(seed) / "result" / "test_epochbest.json").read_text())
        orders.add(rows[0]["prediction"])
        assert [row["prediction"] for row in rows[1:]] == [0, 0, 2]  # no ties: no chance
    assert orders == {0, 1, 2}


def test_the_question_is_what_candidates_share():
    texts = ["question: who is [0] ? answer: a man", "question: who is [0] ? answer: a woman"]
    assert split_question(texts) == ("question: who is [0] ? answer:", ["a man", "a woman"])
    assert split_question(["a red dog", "a red cat"]) == ("a red", ["dog", "cat"])
    assert split_question(["one"]) == ("", ["one"])


def test_the_page_fits_and_can_be_read(choices, run, browser, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROWS", [
        ((f"1 0 {'long' * 50}", f"3 0 {'words ' * 50}"), {"label": 1, "group": "who" * 40}),
        *ROWS,
    ])  # fmt: skip
    choices.pairs.append(("", ""))
    run(ComparisonTask(ComparisonConfig()), choices, Matcher(), tmp_path)
    check_report(browser, tmp_path / "report.html")
