"""Exact match and token F1 of written answers, as SQuAD's official scorer computes them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

NOT_ANSWERED = ("not in background", "cannotanswer", "unanswerable", "no answer")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return a text in lower case without ASCII punctuation, articles and extra blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 where the prediction equals one of the answers once normalised, else 0.0."""
    said = normalize_answer(prediction)
    return float(any(said == normalize_answer(answer) for answer in answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the largest F1 of words shared with one of the answers, as SQuAD's first scorer."""
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    said, right = normalize_answer(prediction).split(), normalize_answer(answer).split()
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if shared else 0.0


def first_line(text: str) -> str:
    """Return the first line of a generated text that is not blank."""
    stripped = text.strip()
    return stripped.split("\n", 1)[0].strip() if stripped else ""


def is_finished(text: str) -> bool:
    """Tell whether what has been generated already ends its first line."""
    return "\n" in text.lstrip()


def declines(prediction: str) -> bool:
    """Tell whether a prediction says that the passage gives no answer, as the prompt asks it to."""
    said = normalize_answer(prediction)
    return not said or said in {normalize_answer(text) for text in NOT_ANSWERED}


def score_answer(prediction: str, answers: Sequence[str]) -> dict[str, float]:
    """Return `exact_match` and `f1`; without accepted answers, whether the prediction declines."""
    if not answers:
        right = float(declines(prediction))
        return {"exact_match": right, "f1": right}
    return {
        "exact_match": exact_match(prediction, answers),
        "f1": token_f1(prediction, answers),
    }
