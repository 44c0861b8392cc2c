"""Exact match and token F1 of written answers, by the rules of each benchmark's own scorer.

`released`: the released scripts', which is SQuAD's first scorer. `squad_v2`: SQuAD v2's, where a
prediction that declines counts as the empty one; no threshold is tuned on the test questions
(official `exact` and `f1`, not `best_exact` and `best_f1`). `quac`: QuAC's, where F1 is the mean
over annotators of the best F1 against all but that one, as their own agreement is measured; a
prediction that declines counts as `CANNOTANSWER`, an empty one does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from lavis.datasets.benchmarks.answer_text import normalize_answer, shared_words_f1
from lavis.datasets.benchmarks.question import Scorer

NOT_ANSWERED = ("not in background", "cannotanswer", "unanswerable", "no answer")


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals one of the answers once normalised, else 0.0."""
    normalized = normalize_answer(prediction)
    return float(any(normalized == normalize_answer(answer) for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the largest F1 of words shared with one of the answers, as SQuAD's first scorer."""
    return max((shared_words_f1(prediction, answer) for answer in answers), default=0.0)


def first_line(text: str) -> str:
    """Return the first line of a generated text that is not blank."""
    stripped = text.strip()
    return stripped.split("\n", 1)[0].strip() if stripped else ""


def is_finished(text: str) -> bool:
    """Return whether the generated text already ends its first line."""
    return "\n" in text.lstrip()


def declines(prediction: str, scorer: Scorer = "squad_v2") -> bool:
    """Return whether a prediction says that the passage gives no answer, as the prompt requests.

    SQuAD v2's scorer takes a prediction without words for that, too; QuAC's does not.
    """
    normalized = normalize_answer(prediction)
    if not normalized:
        return scorer != "quac"
    return normalized in {normalize_answer(text) for text in NOT_ANSWERED}


def score_answer(
    prediction: str, answers: Sequence[str], scorer: Scorer = "released"
) -> dict[str, float]:
    """Return `exact_match` and `f1`.

    Args:
        answers: accepted ones; none where the question cannot be answered: then both are 1 for a
            prediction that declines, else 0. A prediction in words that decline is compared as
            those words where an accepted answer is just that ("No answer").
        scorer: see the module.
    """
    if scorer == "squad_v2":
        answers = [answer for answer in answers if normalize_answer(answer)]
    if not answers:
        right = float(declines(prediction, scorer))
        return {"exact_match": right, "f1": right}
    exact = exact_match(prediction, answers)
    if scorer != "released" and not exact and declines(prediction, scorer):
        return {"exact_match": 0.0, "f1": 0.0}
    f1 = token_f1(prediction, answers)
    if scorer == "quac" and len(answers) > 1:
        left_out = [[*answers[:n], *answers[n + 1 :]] for n in range(len(answers))]
        f1 = sum(token_f1(prediction, others) for others in left_out) / len(answers)
    return {"exact_match": exact, "f1": f1}
