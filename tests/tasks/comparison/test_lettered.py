"""Options by letter, in every rotation: values computed by hand."""

import math

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.datasets.rows import Row
from lavis.tasks.base import UnitBatch
from lavis.tasks.comparison.lettered import Lettered
from lavis.tasks.comparison.ranking import Judgements, ranks, references
from lavis.tasks.comparison.task import ComparisonTask
from lavis.tasks.config import ComparisonConfig

TEXTS = (("red", "blue", "green"), ("yes", "no"))


def make_batch():
    rows = [
        Row(
            n,
            "key",
            texts[0],
            {"instance": str(n), "label": 1},
            texts=texts,
            parts=tuple({"question": f"q{n}", "answer": text} for text in texts),
        )
        for n, texts in enumerate(TEXTS)
    ]
    return UnitBatch(0, rows, {"image_index": torch.tensor([0, 0, 0, 1, 1])})


class LikesLetters:
    """Gives letters fixed probabilities, and multiplies that of one text by eight."""

    def __init__(self, letters, text):
        self.letters, self.text = letters, text

    def letters_of(self, options):
        weights = [
            self.letters[place] * (8 if option == self.text else 1)
            for place, option in enumerate(options)
        ]
        return [math.log(weight / sum(weights) * 0.9) for weight in weights]  # .1 elsewhere

    def asked(self, samples):
        self.seen = [(p["question"], tuple(p["options"])) for p in samples["parts"]]
        self.images = samples["image_index"]
        most = max(len(p["options"]) for p in samples["parts"])
        rows = [self.letters_of(p["options"]) for p in samples["parts"]]
        return {"log_probs": torch.tensor([row + [-math.inf] * (most - len(row)) for row in rows])}


def model_of(letters, text):
    likes = LikesLetters(letters, text)
    model = type("Model", (), {"letters": lambda self, samples: likes.asked(samples)})()
    return likes, model


def test_every_candidate_stands_at_every_letter_once():
    likes, model = model_of([0.5, 0.3, 0.2], "blue")
    batch = make_batch()
    task = ComparisonTask(ComparisonConfig(score="letters", circular=True))
    rows = task.scored_rows(batch, task.predict(model, batch))
    assert likes.seen == [
        ("q0", ("red", "blue", "green")),
        ("q0", ("blue", "green", "red")),
        ("q0", ("green", "red", "blue")),
        ("q1", ("yes", "no")),
        ("q1", ("no", "yes")),
    ]
    assert likes.images == [0, 0, 0, 1, 1]
    payload = rows[0][1]
    # blue is B, then A, then C: .3 * 8, .5 * 8, .2 * 8 of the sums .5 + .2 + 2.4 and so on
    by_hand = [2.4 / 3.1, 4.0 / 4.5, 1.6 / 2.4]
    expected = sum(map(math.log, by_hand)) / 3
    assert payload["match_scores"][1] == pytest.approx(expected, rel=1e-5)
    assert payload["choices"] == [1, 1, 1] and payload["prediction"] == 1
    # without the text it likes, the model takes A, that is another candidate in each rotation
    assert rows[1][1]["choices"] == [0, 1]


def test_right_in_all_rotations_and_its_chance():
    table = Judgements()
    for choices, label in (((1, 1, 1), 1), ((1, 0, 1), 1), ((0, 0, 0), 1)):
        row = {"label": label, "choices": list(choices)}
        (circular,) = [r for r in references(row, 3) if r.metric == "circular"]
        table.add(circular, "abc", ranks([0, 1, 0], 0, "k"), seed=0, key="k")
    figures = table.describe(resamples=10, seed=0)
    assert figures["value"] == pytest.approx(100 / 3)
    assert figures["chance"] == pytest.approx(100 / 27)
    assert "position" not in figures["baselines"]


def test_one_order_asks_once_and_has_no_choices():
    likes, model = model_of([0.5, 0.3, 0.2], "blue")
    batch = make_batch()
    task = ComparisonTask(ComparisonConfig(score="letters"))
    rows = task.scored_rows(batch, task.predict(model, batch))
    assert len(likes.seen) == 2
    assert "choices" not in rows[0][1]
    assert rows[0][1]["match_scores"] == pytest.approx([math.log(w / 3.1) for w in (0.5, 2.4, 0.2)])


def test_a_reject_of_one_rotation_rejects_the_row():
    questions = Lettered.of(make_batch(), circular=True)
    notes = [{}, {"reject": "text: holds an image mark"}, {}, {"mass": 0.4}, {}]
    assert questions.notes(notes) == [{"reject": "text: holds an image mark"}] * 3 + [{}] * 2


def test_data_without_answers_and_circles_without_letters_are_refused():
    batch = UnitBatch(0, [Row(0, "key", "t", {})], {"image_index": torch.tensor([0])})
    with pytest.raises(ConfigError, match="letters needs records"):
        Lettered.of(batch, circular=False)
    many = Row(3, "key", "t", {}, texts=("t",) * 27, parts=({"answer": "a"},) * 27)
    with pytest.raises(ConfigError, match="row 3 has 27 candidates"):
        Lettered.of(UnitBatch(0, [many], {"image_index": [0] * 27}), circular=True)
    with pytest.raises(ValueError, match="candidates have no order where score is itm"):
        ComparisonConfig(circular=True)
