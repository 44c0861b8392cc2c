"""Written answers by the released rule and by those of SQuAD v2 and QuAC; values by hand."""

from __future__ import annotations

import pytest

from lavis.datasets.benchmarks.answer_text import agreement, quac_references
from lavis.tasks.questions.reading_metrics import (
    exact_match,
    first_line,
    is_finished,
    score_answer,
    token_f1,
)

CASES = [
    # scorer, prediction, answers, exact match, F1
    ("released", "in the Normandy!", ["Normandy"], 0.0, 2 / 3),
    ("released", "Not in background.", ["the background"], 0.0, 1 / 2),  # words are words
    ("released", "Not in background.", [], 1.0, 1.0),
    ("squad_v2", "The Normandy.", ["in Normandy", "normandy"], 1.0, 1.0),
    ("squad_v2", "Not in background.", ["the background"], 0.0, 0.0),  # the empty prediction
    ("squad_v2", "", ["Rome"], 0.0, 0.0),
    ("squad_v2", "Rome", [], 0.0, 0.0),
    ("squad_v2", "not in background", [], 1.0, 1.0),
    ("squad_v2", "", ["the"], 1.0, 1.0),  # answers of nothing but articles are none
    ("squad_v2", "big old Rome", ["Rome", "old Rome town"], 0.0, 2 / 3),
    # two annotators: each alone, averaged; (1 + 2/3) / 2
    ("quac", "Ada", ["Ada", "Ada Lovelace"], 1.0, 5 / 6),
    # three: best of two, three times; (2/3 + 1 + 1) / 3
    ("quac", "Ada", ["Ada", "Ada Lovelace", "Byron"], 1.0, 8 / 9),
    ("quac", "Not in background.", ["Ada", "Ada Lovelace"], 0.0, 0.0),
    ("quac", "CANNOTANSWER", [], 1.0, 1.0),
    ("quac", "Ada", [], 0.0, 0.0),
    ("quac", "Ada", ["Ada"], 1.0, 1.0),
    # nothing is not CANNOTANSWER to QuAC's scorer, but is the empty prediction to SQuAD's
    ("quac", "", [], 0.0, 0.0),
    ("quac", "The.", [], 0.0, 0.0),
    ("quac", "Not in background.", [], 1.0, 1.0),
    ("squad_v2", "The.", [], 1.0, 1.0),
    ("released", "", ["Rome"], 0.0, 0.0),
    ("quac", "", ["Ada"], 0.0, 0.0),
    # an answer may be these words: "What did he reply?" "No answer."
    ("squad_v2", "no answer", ["No answer."], 1.0, 1.0),
    ("squad_v2", "no answer", ["He gave no answer"], 0.0, 0.0),
    ("released", "no answer", ["He gave no answer"], 0.0, 2 / 3),
    ("quac", "No answer", ["no answer"], 1.0, 1.0),
    ("quac", "No answer", ["no answer", "he gave no answer"], 1.0, (2 / 3 + 1) / 2),
    ("quac", "Unanswerable.", ["no answer"], 0.0, 0.0),
]


@pytest.mark.parametrize(("scorer", "said", "answers", "exact", "f1"), CASES)
def test_scores_of_one_answer(scorer, said, answers, exact, f1):
    found = score_answer(said, answers, scorer)
    assert found == {"exact_match": exact, "f1": pytest.approx(f1)}


@pytest.mark.parametrize(
    ("text", "line", "finished"),
    [
        ("", "", False),
        (" \n\t", "", False),
        (" Rome ", "Rome", False),
        ("\n\n in old Rome \nQ: who?\nA: Ada", "in old Rome", True),
        ("Rome\n", "Rome", True),
    ],
)
def test_the_first_line_of_what_is_written(text, line, finished):
    assert first_line(text) == line
    assert is_finished(text) == finished


def test_the_released_rule_is_the_one_that_nobody_names():
    assert score_answer("Not in background.", ["the background"])["f1"] == 0.5


def test_no_accepted_answer_shares_no_word():
    assert token_f1("Rome", []) == 0.0 and exact_match("Rome", []) == 0.0


def test_annotators_of_quac():
    assert quac_references(["Ada", "CANNOTANSWER"]) == ()  # as many as found one
    assert quac_references(["Ada", "CANNOTANSWER", "Byron"]) == ("Ada", "Byron")
    assert agreement(["Ada"]) == agreement(()) == 1.0
    assert agreement(["Ada", "Ada Lovelace", "Byron"]) == pytest.approx(4 / 9)
    # two of three found no answer: QuAC's scorer then knows CANNOTANSWER only
    assert quac_references(["Ada", "CANNOTANSWER", "CANNOTANSWER"]) == ()
    # each annotator's best: 2 * 1 / (1 + 4), 2 * 3 / (3 + 4), 2 * 3 / (3 + 4)
    words = ["ate", "ate red fresh apples", "red fresh apples"]
    assert agreement(words) == pytest.approx((2 / 5 + 6 / 7 + 6 / 7) / 3)
