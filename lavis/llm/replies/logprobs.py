"""Logprobs of a chat completion, in the forms of several servers; and as they are stored.

OpenAI, vLLM, SGLang and llama.cpp report `content`, a list with an object for each token; Together
and older servers report `tokens`, `token_logprobs` and `top_logprobs`, three lists of one length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lavis.common.errors import REFUSALS, finite
from lavis.llm.base import TokenLogprobs

MOST_TOKENS = 512  # of an answer; logprobs of longer ones are not kept
LEAST = -9000.0  # vLLM writes -9999 for "not known"
_MARKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n", "\u0109": "\t"})
_PROBED = 24  # characters by which the start of an answer is found


def plain_token(token: str) -> str:
    """Return a token's text; some servers write blanks as the vocabularies of tokenizers do."""
    return token.translate(_MARKS)


def read_logprobs(
    choice: Mapping[str, Any], answer: str, thought: str
) -> tuple[TokenLogprobs, ...] | None:
    """Return logprobs of an answer's tokens, or None where a completion has none.

    Args:
        choice: of the completion.
        answer: its text.
        thought: text before the answer, whose tokens are left out.

    Returns:
        An empty tuple where the answer's first token cannot be made out.
    """
    try:
        tokens = list(_tokens(choice.get("logprobs")))
    except REFUSALS:
        return None
    if not tokens:
        return None
    start = _start(tokens, answer.strip(), starts=not thought)
    if start is None and thought:
        return ()
    return tuple(tokens[start or 0 :][:MOST_TOKENS])


def to_json(logprobs: Iterable[TokenLogprobs]) -> list[list[Any]]:
    """Return the entry of a store, to be read by `from_json`."""
    return [[each.token, each.logprob, [list(pair) for pair in each.top]] for each in logprobs]


def from_json(node: Any) -> tuple[TokenLogprobs, ...] | None:
    """Return what `to_json` wrote; raises one of `REFUSALS` for anything else."""
    if node is None:
        return None
    return tuple(
        TokenLogprobs(str(token), float(logprob), tuple((str(t), float(p)) for t, p in top))
        for token, logprob, top in node
    )


def _tokens(node: Any) -> Iterator[TokenLogprobs]:
    """Yield the report's tokens; raises one of `REFUSALS` where it has an unknown form."""
    if not node:
        return
    if "content" in node:
        for each in node["content"] or ():
            top = each.get("top_logprobs") or ()
            pairs = ((one["token"], one.get("logprob")) for one in top)
            yield _token(each["token"], each.get("logprob"), pairs)
        return
    tokens = node.get("tokens") or ()
    chosen = node.get("token_logprobs") or [None] * len(tokens)
    tops = node.get("top_logprobs") or [None] * len(tokens)
    for token, logprob, top in zip(tokens, chosen, tops, strict=True):
        yield _token(token, logprob, (top or {}).items())


def _token(token: Any, logprob: Any, top: Iterable[tuple[Any, Any]]) -> TokenLogprobs:
    if not isinstance(token, str):
        raise TypeError("a token that is no text")
    known = ((text, finite(value)) for text, value in top if isinstance(text, str))
    pairs = tuple((text, value) for text, value in known if value is not None and value > LEAST)
    own = finite(logprob)
    if any(value > 1e-3 for _, value in pairs) or (own is not None and own > 1e-3):
        raise ValueError("a probability above 1: these are no logarithms")
    return TokenLogprobs(token, LEAST if own is None else max(own, LEAST), pairs)


def _start(tokens: list[TokenLogprobs], answer: str, *, starts: bool) -> int | None:
    """Return the number of an answer's first token; None where it cannot be made out.

    Args:
        starts: the answer may be all of it; else reasoning, or the marks of none, come before.
    """
    texts = [plain_token(each.token) for each in tokens]
    joined = "".join(texts)
    if starts and joined.lstrip().startswith(answer[:_PROBED]):
        return 0
    place = joined.rfind(answer)
    if place < 0:  # tokens that are parts of a character differ from it
        place = joined.rfind(answer[:_PROBED])
    if place < 0 or not answer:
        return None
    end = 0
    for number, text in enumerate(texts):
        end += len(text)
        if end > place:
            return number
    return None
