"""The JSON of a chat completion to an answer, or to the reason why it is none.

Servers agree on the outline and on little else, so every field is read in all its forms: content
as text or as parts, an error inside a success, an end in any of many words
(`lavis/configs/llm/finish_reasons.yaml`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lavis.common.errors import REFUSALS, finite
from lavis.llm.base import ChatReply
from lavis.llm.endpoint.failures import Problem
from lavis.llm.money.tokens import read_usage, rough_tokens
from lavis.llm.replies.logprobs import read_logprobs
from lavis.llm.replies.reasoning import answer_text
from lavis.llm.tables import Words, load_table

NO_ANSWERS = frozenset({"length", "content_filter", "refusal", "error"})  # not to be stored
_MAX_SHOWN = 300  # characters of a server's message
_REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thoughts")
CUT_THOUGHT = (
    "cut off: max_tokens was used up before an answer began; raise max_tokens, or switch the "
    "model's thinking off (llm.extra_body)"
)

Judge = Callable[[int, Any], Problem]
"""Classifies an error by its HTTP status and body."""


def read_completion(
    key: str, text: str, hide: Callable[[str], str], judge: Judge | None = None
) -> ChatReply | Problem:
    """Return the answer that a completion's JSON holds, or why it holds none.

    A reply with `finish_reason` `length` is cut: its caller decides what of it is of use.

    Args:
        text: body of an answer with status 200.
        hide: removes secrets from a text.
        judge: of errors inside a success, with the status that they name, else 200; without it
            they are transient.
    """
    try:
        if is_stream(text):
            answer: Any = join_events(text)
        else:
            answer = json.loads(text.lstrip("\ufeff \t\r\n"), strict=False)
        if isinstance(answer, list) and len(answer) == 1:  # Gemini wraps its errors so
            answer = answer[0]
        if not isinstance(answer, dict):
            raise TypeError("an object was expected")
        outcome = _read(answer, judge)
        texts = () if isinstance(outcome, Problem) else outcome[1:3]
        usage = read_usage(answer.get("usage"), sum(map(rough_tokens, texts)))
    except REFUSALS:
        return Problem("transient", _malformed(hide(text)), cost="unknown")
    if isinstance(outcome, Problem):
        reason = hide(" ".join(outcome.reason.split()))
        return replace(outcome, reason=reason, usage=usage)  # without usage, `cost` counts
    choice, written, thought, end = outcome
    prompt_tokens, completion_tokens = usage or (0, 0)
    return ChatReply(
        key=key,
        text=hide(written),
        finish_reason=end,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        reasoning=hide(thought),
        logprobs=read_logprobs(choice, written, thought),
    )


def no_answer(thought: str, end: str) -> Problem:
    """Return why a reply without text is no answer.

    Args:
        thought: what the model wrote before it, empty where it wrote nothing at all.
        end: normalised finish reason.
    """
    if end == "length":
        return Problem("refused", CUT_THOUGHT, cost="unknown")
    what = "the model thought and gave no answer" if thought else "the model wrote nothing"
    return Problem("transient", f"empty reply: {what}", cost="unknown", most_attempts=3)


def end_of(word: Any) -> str:
    """Return `stop`, `length`, `content_filter`, `refusal`, `error`, or a server's own word."""
    if word is None or isinstance(word, bool | dict | list):
        return "stop"
    plain = str(word).strip().rpartition(".")[2].lower().replace("-", "_").replace(" ", "_")
    ends = load_table("finish_reasons", dict[str, Words])
    return next((end for end, words in ends.items() if plain in words), plain or "stop")


_Read = tuple[dict[str, Any], str, str, str]  # a choice, its answer, its reasoning, its end


def _read(answer: dict[str, Any], judge: Judge | None) -> Problem | _Read:
    """Return the choice with an answer, or why there is none."""
    error = _error(answer)
    if error is not None:
        return _judged(error, judge)
    if not answer["choices"]:
        if _has_flag(answer.get("prompt_filter_results")):
            return Problem("refused", "content filter: the server flagged the prompt")
        reason = "empty reply: the server gave no choices"
        return Problem("transient", reason, cost="unknown", most_attempts=3)
    choices = [_choice(choice) for choice in answer["choices"]]
    choice, written, thought, end = next((one for one in choices if one[1]), choices[0])
    error = choice.get("error")
    if error or end == "error":
        return _judged(error or {"message": "the model ended with an error"}, judge)
    message = _message_of(choice)
    reason = ""
    refusal = _text(message.get("refusal")) or _refusal_part(message.get("content"))
    if end == "content_filter":
        reason = "content filter: the server withheld the reply"
    elif (refusal and not written) or end == "refusal":
        reason = f"refusal: {(refusal or written)[:_MAX_SHOWN]}"
    if reason:
        return Problem("refused", reason, cost="unknown")
    if not written and (message.get("tool_calls") or message.get("function_call")):
        reason = "empty reply: the model called a tool in place of an answer"
        return Problem("transient", reason, cost="unknown", most_attempts=3)
    return (choice, written, thought, end) if written else no_answer(thought, end)


def _choice(choice: dict[str, Any]) -> _Read:
    message = _message_of(choice)
    content = message.get("content")
    if content is None:
        content = choice.get("text")  # of plain completions
    parts = list(_parts(content))
    written, thought = answer_text("".join(text for text, thinks in parts if not thinks))
    thoughts = ["".join(text for text, thinks in parts if thinks)]
    fields = (_text(message.get(name)) for name in _REASONING_FIELDS)
    thoughts += [next(filter(None, fields), ""), thought]
    ends = (choice.get(name) for name in ("finish_reason", "stop_reason"))
    end = end_of(next((word for word in ends if isinstance(word, str)), None))
    return choice, written if written.strip() else "", "\n\n".join(filter(None, thoughts)), end


def _message_of(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message", choice.get("delta"))
    if message is None and "text" in choice:
        return {}
    if isinstance(message, str):
        return {"content": message}
    if not isinstance(message, dict):
        raise TypeError("a choice without a message")
    return message


def _parts(content: Any) -> Iterator[tuple[str, bool]]:
    """Yield texts of a message's content, each with whether it is reasoning."""
    if content is None:
        return
    if isinstance(content, str):
        yield content, False
        return
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part, False
            continue
        kind = str(part.get("type") or "text").lower()  # what is no object is malformed
        if kind == "refusal":
            continue
        thinks = "think" in kind or "reason" in kind or part.get("thought") is True
        yield _text(part), thinks


def _refusal_part(content: Any) -> str:
    parts = content if isinstance(content, list) else []
    texts = (_text(part.get("refusal")) for part in parts if isinstance(part, dict))
    return next(filter(None, texts), "")


def _text(value: Any) -> str:
    """Return all text in a field that may be a text, a part, or a list of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(_text, value))
    if isinstance(value, dict):
        names = ("text", "content", "value", "thinking", "reasoning", "summary", "parts")
        return next(filter(None, (_text(value.get(name)) for name in names)), "")
    return ""


def _error(answer: dict[str, Any]) -> Any:
    """Return an error that a server sent with status 200, or None."""
    if answer.get("error"):
        return answer["error"]
    if not answer.get("choices"):
        if str(answer.get("object") or answer.get("type") or "").lower() == "error":
            return answer
        if "choices" not in answer and (answer.get("detail") or answer.get("message")):
            return {"message": answer.get("message") or answer["detail"], **answer}
        reason = (answer.get("promptFeedback") or {}).get("blockReason")  # Gemini's own form
        if reason:
            return {"code": "content_filter", "message": f"the prompt was blocked ({reason})"}
    return None


def _judged(error: Any, judge: Judge | None) -> Problem:
    """Return the meaning of an error inside a success."""
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    message = error.get("message", error) if isinstance(error, dict) else error
    text = message if isinstance(message, str) else json.dumps(message, default=str)
    shown = text.strip()[:_MAX_SHOWN]
    status = finite(code)
    if status is None and isinstance(code, str) and code.strip().isdecimal():
        status = float(code)
    if end_of(code) == "content_filter":
        return Problem("refused", f"content filter: {shown}")
    if judge is not None:
        named = status is not None and 400 <= status <= 599
        problem = judge(int(status or 0) if named else 200, {"error": error})
        if named or problem.kind != "transient":
            return problem
    return Problem("transient", f"error in the reply: {shown}", cost="unknown")


def _has_flag(results: Any) -> bool:
    """Return whether Azure's filter results of the prompt say that one of them blocked it."""
    if isinstance(results, dict):
        return results.get("filtered") is True or any(map(_has_flag, results.values()))
    return isinstance(results, list) and any(map(_has_flag, results))


def _malformed(text: str) -> str:
    start = text.lstrip("\ufeff \t\r\n")[:80]
    if start[:1] == "<":
        return (
            f"malformed answer: a web page came in place of a chat completion ({start[:40]!r}); "
            "llm.base_url often ends in /v1"
        )
    if not start:
        return "malformed answer: the server sent nothing"
    return f"malformed answer: the server's answer is no chat completion: {start!r}"


def is_stream(text: str) -> bool:
    """Return whether the body of an answer is server-sent events."""
    return text.lstrip("\ufeff \t\r\n").startswith(("data:", "event:", ":"))


def join_events(text: str) -> dict[str, Any]:
    """Return the completion, or the error, that a stream's events add up to.

    Some gateways stream whatever the request says. Streamed pieces were paid for, so the pieces
    (`delta`) of the first choice are joined; the last word on its end and on usage counts. A stream
    that stops before its end is no answer.

    Raises:
        ValueError: an event is not JSON, or the stream has no end.
        TypeError, KeyError, AttributeError: an event has another form.
    """
    message: dict[str, Any] = {}
    end: Any = None
    usage: Any = None
    logprobs: list[Any] = []
    is_whole = False
    for data in _events(text):
        if data.strip() == "[DONE]":
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
            report = choice.get("logprobs")
            logprobs += (report.get("content") or []) if isinstance(report, dict) else []
            end = choice.get("finish_reason") or end
    if not is_whole and end is None:
        raise ValueError("a stream without an end")
    report = {"logprobs": {"content": logprobs}} if logprobs else {}
    return {"choices": [{"message": message, "finish_reason": end, **report}], "usage": usage}


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
        before = message.get(name)
        if value is None or name == "role":
            continue
        joins = isinstance(value, str | list) and type(before) is type(value)
        message[name] = before + value if joins else value
