"""What the JSON of a chat completion says: an answer, or the reason why it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lavis.common.refusals import REFUSALS
from lavis.llm.base import ChatReply
from lavis.llm.failures import Problem

_SHOWN = 300  # characters of a server's message


def read_completion(key: str, text: str, hide: Callable[[str], str]) -> ChatReply | Problem:
    """Return the reply that a completion's JSON holds.

    Args:
        key: of the reply.
        text: body of an answer with status 200.
        hide: takes secrets out of a text.
    """
    try:
        return _reply(key, json.loads(text), hide)
    except REFUSALS:
        reason = f"the server's answer is no chat completion: {hide(text[:80])!r}"
        return Problem("transient", reason, cost="unknown")


def _reply(key: str, answer: dict[str, Any], hide: Callable[[str], str]) -> ChatReply | Problem:
    if answer.get("error"):
        return Problem("transient", _message(answer["error"], hide), cost="unknown")
    choice = answer["choices"][0]
    message = choice["message"]
    content = message.get("content")
    finish = str(choice.get("finish_reason") or "stop")
    if message.get("refusal") and not content:
        content, finish = message["refusal"], "refusal"
    if content is not None and not isinstance(content, str):
        raise TypeError("content")
    usage = answer.get("usage") or {}
    return ChatReply(
        key=key,
        text=hide(content or ""),
        finish_reason=finish,
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def _message(error: Any, hide: Callable[[str], str]) -> str:
    if isinstance(error, dict):
        error = error.get("message", error)
    text = error if isinstance(error, str) else json.dumps(error, default=str)
    return hide(text)[:_SHOWN]
