"""What a server says it counted for one request, in whatever form it says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.common.errors import finite

_PROMPT = ("prompt_tokens", "input_tokens")
_REPLY = ("completion_tokens", "output_tokens")


def read_usage(usage: Any, reply_guess: int = 0) -> tuple[int, int] | None:
    """Return (prompt tokens, completion tokens), 0 where one is not said; None of no use at all.

    What was spent is never read as less than said: `total_tokens` above the sum of its parts is
    tokens of the reply (reasoning that some servers leave out of `completion_tokens`), and the
    reply has at least the reasoning tokens of its details. Cached prompt tokens are part of the
    prompt, here at full price. Numbers below 0 and what is no number count as not said.

    Args:
        usage: the object of that name in a completion, of any form.
        reply_guess: tokens of the reply by its length, which split a total without parts.
    """
    if not isinstance(usage, Mapping):
        return None
    prompt, reply = _first(usage, _PROMPT), _first(usage, _REPLY)
    total = _number(usage.get("total_tokens"))
    details = usage.get("completion_tokens_details")
    thought = _number(details.get("reasoning_tokens")) if isinstance(details, Mapping) else 0
    reply = max(reply, thought)
    if total > prompt + reply:
        if not prompt:
            reply = reply or min(reply_guess, total - 1)
            prompt = total - reply
        else:
            reply = total - prompt
    return (prompt, reply) if prompt or reply else None


def rough_tokens(text: str) -> int:
    """Return about how many tokens a reply has, rather too many than too few."""
    return -(-len(text.encode("utf-8", "replace")) // 3)


def _first(usage: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((value for name in names if (value := _number(usage.get(name)))), 0)


def _number(value: Any) -> int:
    """Return a count of tokens, 0 where it is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    number = finite(value)
    return int(number) if number is not None and number > 0 else 0
