"""An answer that a server streams though it was not asked to: its events as one completion.

Some gateways stream whatever the request says. What they send was paid for, so that it is read as
if it had come whole: the pieces (`delta`) of the first choice are joined, the last word on its end
and on usage counts. A stream that stops before its end is no answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_DONE = "[DONE]"


def is_stream(text: str) -> bool:
    """Return whether the body of an answer is server-sent events."""
    return text.lstrip("\ufeff \t\r\n").startswith(("data:", "event:", ":"))


def join_events(text: str) -> dict[str, Any]:
    """Return the completion, or the error, that a stream's events add up to.

    Args:
        text: for which `is_stream` holds.

    Raises:
        ValueError: an event is no JSON, or the stream has no end.
        TypeError, KeyError, AttributeError: an event has another form.
    """
    message: dict[str, Any] = {}
    end: Any = None
    usage: Any = None
    is_whole = False
    for data in _events(text):
        if data.strip() == _DONE:
            is_whole = True
            continue
        event = json.loads(data, strict=False)
        if event.get("error"):
            return event
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            if choice.get("index"):
                continue
            if "message" in choice:  # the whole of it as one event
                return event
            _join(message, choice.get("delta") or {})
            end = choice.get("finish_reason") or end
    if not is_whole and end is None:
        raise ValueError("a stream without an end")
    return {"choices": [{"message": message, "finish_reason": end}], "usage": usage}


def _events(text: str) -> Iterator[str]:
    """Yield the data of each event."""
    lines: list[str] = []
    for line in [*re.split(r"\r\n|\r|\n", text.lstrip("\ufeff")), ""]:
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line.strip() and lines:
            yield "\n".join(lines)
            lines = []


def _join(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        known = message.get(name)
        if value is None or name == "role":
            continue
        joins = isinstance(value, str | list) and type(known) is type(value)
        message[name] = known + value if joins else value
