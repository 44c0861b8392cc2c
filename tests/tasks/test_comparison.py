"""Comparison: candidates of one picture ranked, accuracy and rank agreement by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.datasets.base import Row
from lavis.tasks.comparison import ComparisonTask, pairwise_agreement
from lavis.tasks.config import ComparisonConfig


@pytest.fixture
def choices(list_dataset):
    """Rows of several candidates; each text is its ITM logit and its ITC score."""
    rows = [
        (("1 0", "3 0", "2 9"), {"label": 1}),
        (("5 0", "4 9"), {"label": 1, "scores": [0.1, 0.9]}),
        (("7 0",), {"label": 0}),
        (("1 0", "nan 0"), {"label": 0}),
    ]

    class Choices(list_dataset):
        def row(self, index, rng=None):
            texts, fields = rows[index]
            several = texts if len(texts) > 1 else None
            return Row(index, f"picture {index % 2}", texts[0], fields, texts=several)

        def collate(self, rows, pictures, image_index):
            counts = [len(row.all_texts) for row in rows]
            samples = super().collate(rows, pictures, list(np.repeat(image_index, counts)))
            return {**samples, "text_input": [text for row in rows for text in row.all_texts]}

    return Choices([("", "")] * len(rows))


class Matcher:
    def predict(self, samples):
        logits = torch.tensor([[0.0, float(text.split()[0])] for text in samples["text_input"]])
        return {"logits": logits}


class ContrastiveMatcher(Matcher):
    def score(self, samples):
        itc = torch.tensor([float(text.split()[1]) for text in samples["text_input"]])
        return {"itm": self.predict(samples)["logits"][:, 1], "itc": itc}


def test_accuracy_and_agreement_with_people(choices, run, tmp_path):
    metrics = run(ComparisonTask(ComparisonConfig()), choices, Matcher(), tmp_path)
    assert metrics == {
        "agg_metrics": 0.5,
        "accuracy": 0.5,  # rows 0 and 1; row 2 has nothing to compare, row 3 no score
        "pairwise": -100.0,
        "rows": 4,
        "scored": 3,
        "rejected": 1,
    }
    rows = json.loads((tmp_path / "result" / "test_epochbest.json").read_text())
    assert rows[0] == {
        "texts": ["1 0", "3 0", "2 9"],
        "label": 1,
        "match_scores": [1.0, 3.0, 2.0],
        "prediction": 1,
    }
    reject = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert reject["row"] == 3 and reject["reason"].startswith("score is not a number")


@pytest.mark.parametrize(("head", "predictions"), [("itc", [2, 1, 0]), ("itm+itc", [2, 1, 0])])
def test_the_contrastive_heads_can_rank(choices, run, tmp_path, head, predictions):
    task = ComparisonTask(ComparisonConfig(match_head=head))
    run(task, choices, ContrastiveMatcher(), tmp_path)
    lines = (tmp_path / "result" / "test_epochbest.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines][:3] == predictions


def test_a_model_without_contrastive_heads_is_refused(choices, run, tmp_path):
    with pytest.raises(ConfigError, match=r"run\.match_head: itc .* Matcher lacks; use itm"):
        run(ComparisonTask(ComparisonConfig(match_head="itc")), choices, Matcher(), tmp_path)


def test_pairwise_agreement():
    ratings = np.array([1.0, 2.0, 2.0, 3.0])  # five unequal pairs
    assert pairwise_agreement(np.array([1.0, 5.0, 2.0, 7.0]), ratings) == 1.0
    assert pairwise_agreement(-ratings, ratings) == -1.0
    # (0,1) right, (0,2) right, (0,3) right, (1,3) wrong, (2,3) a tie: 3.5 of 5
    scores = np.array([0.0, 9.0, 4.0, 4.0])
    assert pairwise_agreement(scores, ratings) == pytest.approx(2 * (3.5 / 5 - 0.5))
    assert pairwise_agreement(scores, np.ones(4)) == 0.0
