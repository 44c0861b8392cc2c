"""The JSON of a reranking or scoring answer to scores in the order of the documents.

`/rerank` gives `results` with `index` and `relevance_score`, sorted by score (vLLM, llama.cpp,
Jina, Cohere); `/score` gives `data` with `index` and `score`; SGLang gives a bare list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lavis.common.errors import REFUSALS, finite
from lavis.llm.base import ChatReply
from lavis.llm.endpoint.failures import Problem
from lavis.llm.money.tokens import read_usage

Judge = Callable[[int, Any], Problem]


def read_ranking(
    key: str, text: str, count: int, hide: Callable[[str], str], judge: Judge
) -> ChatReply | Problem:
    """Return a reply whose text is a JSON list of `count` scores, or why there are none.

    Args:
        key: content key.
        text: body of an answer with status 200.
        count: documents of the request.
        hide: removes secrets from a text.
        judge: of errors inside a success.
    """
    usage = None
    try:
        answer = json.loads(text.lstrip("\ufeff \t\r\n"), strict=False)
        if isinstance(answer, dict):
            usage = read_usage(answer.get("usage"))
            if answer.get("error"):
                return judge(200, answer)
        rows = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
        scores = _scores(rows, count)
    except REFUSALS as error:
        why = str(error) if isinstance(error, _Malformed) else hide(" ".join(text.split())[:80])
        reason = f"malformed answer: no score for each document: {why or 'it is empty'}"
        return Problem("transient", reason, cost="unknown", usage=usage, most_attempts=2)
    prompt, written = usage or (0, 0)
    return ChatReply(key, json.dumps(scores), "stop", prompt, written)


class _Malformed(ValueError):
    """Scores that do not belong to documents one to one."""


def _scores(rows: list[dict[str, Any]], count: int) -> list[float]:
    scores: list[float | None] = [None] * count
    for row in rows:
        index = row["index"]
        score = finite(row.get("relevance_score", row.get("score")))
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise _Malformed(f"index {index!r} among {count} documents")
        if scores[index] is not None:
            raise _Malformed(f"document {index} is scored twice")
        if score is None:
            raise _Malformed(f"document {index} has no number for a score")
        scores[index] = score
    known = [score for score in scores if score is not None]
    if len(known) != count:
        raise _Malformed(f"{len(known)} of {count} documents are scored")
    return known
