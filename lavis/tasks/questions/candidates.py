"""Candidates as tokens, and answers from their probabilities; pure functions.

Two rules. `first_token`, as released: the largest probability among the first tokens of all
candidates and of their capitalised forms; its decoded text is the answer. A candidate whose first
token is not the whole word cannot win, and numbers that share a blank token cannot be told apart.
`candidate_likelihood` repairs both: each form counts with the probability of all its tokens, and
the likeliest form's candidate is the answer. Where every form is one token the rules agree.

A masked language model (bert) predicts one mask, so it has the first rule only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Forms = Literal["both", "given"]
Path = tuple[int, ...]
LogProbs = Mapping[tuple[Path, int], float]  # (prefix, token) -> log-probability
Ranking = list[tuple[str, float]]  # answers with log-probabilities, the likeliest first
_BEFORE = "a"  # stands before a candidate, so that its blank is tokenized as inside a text


def written_forms(candidates: Sequence[str], forms: Forms) -> list[str]:
    """Return candidates, then all of them capitalised (`both`), or candidates only (`given`)."""
    capitalised = [c.capitalize() for c in candidates] if forms == "both" else []
    return [*candidates, *capitalised]


def first_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the first token of a text after a blank; a start token is not counted."""
    return int(tokenizer.encode(f" {text}", add_special_tokens=False)[0])


def token_path(tokenizer: PreTrainedTokenizerBase, text: str) -> Path:
    """Return all tokens of a text that follows another after a blank."""
    before = tokenizer.encode(_BEFORE, add_special_tokens=False)
    whole = tokenizer.encode(f"{_BEFORE} {text}", add_special_tokens=False)
    if whole[: len(before)] == before and len(whole) > len(before):
        return tuple(whole[len(before) :])
    return tuple(tokenizer.encode(f" {text}", add_special_tokens=False))


@dataclass(frozen=True)
class CandidateTokens:
    """Candidates as tokens.

    Attributes:
        forms: written forms, each with its candidate, lower-case.
        first: first token of each form (rule `first_token`).
        decoded: text of each of these tokens.
        paths: all tokens of each form (rule `candidate_likelihood`).
        continuations: appended to a prompt so that every token of every path is predicted;
            `()` is the prompt alone.
        targets: of each continuation, prefix -> target tokens after it; each prefix occurs once.
    """

    forms: tuple[tuple[str, str], ...]
    first: tuple[int, ...]
    decoded: tuple[str, ...]
    paths: tuple[Path, ...]
    continuations: tuple[Path, ...]
    targets: tuple[Mapping[Path, tuple[int, ...]], ...]

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        candidates: Sequence[str],
        forms: Forms,
        *,
        first_only: bool = False,
    ) -> CandidateTokens:
        """Tokenize candidates; `first_only` for rule `first_token` alone."""
        written = written_forms(candidates, forms)
        first = tuple(first_token(tokenizer, text) for text in written)
        paths: tuple[Path, ...] = tuple((token,) for token in first)
        if not first_only:
            paths = tuple(token_path(tokenizer, text) for text in written)
        tree: dict[Path, dict[int, None]] = {(): dict.fromkeys(first)}
        for path in paths:
            for end in range(len(path)):
                tree.setdefault(path[:end], {})[path[end]] = None
        inner = [p for p in tree if not any(q[: len(p)] == p and q != p for q in tree)]
        left = dict(tree)
        targets = []
        for path in inner:
            prefixes = [path[:end] for end in range(len(path) + 1)]
            targets.append({p: tuple(left.pop(p)) for p in prefixes if p in left})
        names = [text.strip().lower() for text in written]
        return cls(
            forms=tuple(zip(written, names, strict=True)),
            first=first,
            decoded=tuple(str(tokenizer.decode([i])) for i in first),
            paths=paths,
            continuations=tuple(inner),
            targets=tuple(targets),
        )


def by_first_token(tokens: CandidateTokens, log_probs: LogProbs) -> Ranking:
    """Return decoded first tokens; forms whose first tokens have one text count once."""
    scores: dict[str, float] = {}
    for token, text in zip(tokens.first, tokens.decoded, strict=True):
        scores[text] = log_probs[(), token]
    ranked = sorted(scores.items(), key=lambda item: -item[1])  # stable: earlier forms win ties
    return [(text.strip().lower(), score) for text, score in ranked]


def by_likelihood(tokens: CandidateTokens, log_probs: LogProbs) -> Ranking:
    """Return candidates with the log-probability of their likeliest form."""
    scores: dict[str, float] = {}
    for (_, name), path in zip(tokens.forms, tokens.paths, strict=True):
        total = math.fsum(log_probs[path[:end], path[end]] for end in range(len(path)))
        scores[name] = max(scores.get(name, -math.inf), total)
    return sorted(scores.items(), key=lambda item: -item[1])


RULES = {"first_token": by_first_token, "candidate_likelihood": by_likelihood}


def option_scores(
    log_probs: Sequence[float], ends: Sequence[int], start: int, text: str
) -> dict[str, float]:
    """Return the score of an option by each rule; larger is likelier.

    Args:
        log_probs: of each token after the first, given all before it.
        ends: end of each of these tokens in `text`, in characters.
        start: first character that option-only rules count.
        text: context and option.

    Returns:
        `sequence_loss`: minus the mean loss over all tokens, as released; context counts too.
        `option_likelihood`: log-probability of the option's tokens, given the context.
        `option_likelihood_per_character`: the same over the option's length, as in lm-evaluation-
        harness's `acc_norm`.
    """
    total = math.fsum(value for value, end in zip(log_probs, ends, strict=True) if end > start)
    return {
        "sequence_loss": math.fsum(log_probs) / max(len(log_probs), 1),
        "option_likelihood": total,
        "option_likelihood_per_character": total / max(len(text[start:].strip()), 1),
    }
