"""Token rules and reading metrics; values by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis.tasks.questions.candidates import (
    CandidateTokens,
    by_first_token,
    by_likelihood,
    option_scores,
)
from lavis.tasks.questions.reading_metrics import (
    declines,
    first_line,
    is_finished,
    normalize_answer,
    score_answer,
)

SQUAD = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval" / "squad.json"


class Pieces:
    """A tokenizer that sets the blank apart from digits, as Gemma and Llama do."""

    def __init__(self) -> None:
        self.table = {" ": 1, "2": 2, "4": 3, " red": 4, " Red": 5, "a": 6}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids = []
        while text:
            piece = max((p for p in self.table if text.startswith(p)), key=len)
            ids.append(self.table[piece])
            text = text[len(piece) :]
        return ids

    def decode(self, ids: list[int]) -> str:
        return "".join(next(t for t, i in self.table.items() if i == one) for one in ids)


def test_numbers_share_their_first_token_and_are_told_apart_by_all():
    tokens = CandidateTokens.of(Pieces(), ["2", "4", "red"], "both")
    assert tokens.first == (1, 1, 4, 1, 1, 5)
    assert tokens.paths[:3] == ((1, 2), (1, 3), (4,))
    assert tokens.continuations == ((1,),)  # one row behind the prompt reads everything
    assert tokens.targets == ({(): (1, 4, 5), (1,): (2, 3)},)
    log_probs = {((), 1): -1.0, ((), 4): -1.2, ((), 5): -3.0, ((1,), 2): -2.0, ((1,), 3): -0.1}
    assert by_first_token(tokens, log_probs)[0] == ("", -1.0)  # as released: no number can win
    assert by_likelihood(tokens, log_probs) == [("4", -1.1), ("red", -1.2), ("2", -3.0)]


def test_a_capitalised_form_counts_for_its_candidate():
    tokens = CandidateTokens.of(Pieces(), ["red"], "both")
    assert tokens.continuations == ((),)
    log_probs = {((), 4): -5.0, ((), 5): -1.0}
    assert by_first_token(tokens, log_probs) == [("red", -1.0), ("red", -5.0)]
    assert by_likelihood(tokens, log_probs) == [("red", -1.0)]
    assert CandidateTokens.of(Pieces(), ["red"], "given").first == (4,)
    alone = CandidateTokens.of(Pieces(), ["2", "red"], "given", first_only=True)
    assert alone.continuations == ((),)


def test_options_are_scored_with_and_without_their_context():
    text = "Sky? deep blue"  # tokens end at 3, 4, 9, 14; the first one is not predicted
    scores = option_scores([-1.0, -2.0, -3.0], [4, 9, 14], 4, text)
    assert scores == {
        "sequence_loss": -2.0,
        "option_likelihood": -5.0,
        "option_likelihood_per_character": -5 / 9,  # "deep blue"
    }


def test_reading_metrics_equal_the_published_ones():
    for pair in json.loads(SQUAD.read_text())["pairs"]:
        marks = score_answer(pair["prediction"], pair["answers"])
        assert marks["exact_match"] == pair["exact_match"]
        assert marks["f1"] == pytest.approx(pair["f1"], abs=1e-9)
        assert normalize_answer(pair["prediction"]) == pair["normalized_prediction"]


def test_unanswerable_questions_want_a_refusal():
    assert score_answer("Not in background.", ()) == {"exact_match": 1.0, "f1": 1.0}
    assert score_answer("Paris", ()) == {"exact_match": 0.0, "f1": 0.0}
    assert declines("") and not declines("in background")
    assert first_line("\n Rome \n\nQ: next") == "Rome"
    assert is_finished(" Rome\n") and not is_finished("\nRome")
