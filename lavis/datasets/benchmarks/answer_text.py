"""Written answers compared word by word, like the scorers of SQuAD and QuAC."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

NO_ANSWER = "CANNOTANSWER"  # QuAC's word for questions that the passage does not answer
MIN_AGREEMENT = 0.4  # QuAC leaves out questions whose annotators agree less, F1
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return a text in lower case without ASCII punctuation, articles and extra blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def shared_words_f1(prediction: str, answer: str) -> float:
    """Return F1 of the words that two texts share, once normalised; 0 where one is empty."""
    first, second = normalize_answer(prediction).split(), normalize_answer(answer).split()
    shared = sum((Counter(first) & Counter(second)).values())
    return 2 * shared / (len(first) + len(second)) if shared else 0.0


def quac_references(answers: Sequence[str]) -> tuple[str, ...]:
    """Return the annotators' spans, or none where at least half of them found no answer."""
    spans = tuple(answer for answer in answers if answer != NO_ANSWER)
    return spans if 2 * len(spans) > len(answers) else ()


def agreement(references: Sequence[str]) -> float:
    """Return the mean over annotators of their best F1 against another one; 1 for a single one."""
    if len(references) < 2:
        return 1.0
    best = [
        max(shared_words_f1(one, other) for m, other in enumerate(references) if m != n)
        for n, one in enumerate(references)
    ]
    return sum(best) / len(best)
