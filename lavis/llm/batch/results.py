"""The result files of a batch job: the content of each line, and what the server still owes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lavis.common.errors import REFUSALS
from lavis.llm.base import ChatReply, ChatRequest
from lavis.llm.batch.server import BatchState
from lavis.llm.endpoint.failures import Problem
from lavis.llm.endpoint.wire import Connection

# Codes of lines that the server never worked on.
NOT_DONE = frozenset({"batch_expired", "batch_cancelled", "batch_canceled"})
NO_LIMIT = 4096  # tokens of a reply, for estimates, where a request names none
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ResultLine:
    """Result of one request; `status` and `body` are None, `error` falsy, if the line has none."""

    key: str
    status: int | None
    body: Any
    error: Any

    @property
    def is_answer(self) -> bool:
        """Return whether the server counts the request as completed."""
        return not self.error and self.status in (200, None) and self.body is not None


@dataclass
class ResultCounts:
    """What result files hold for the requests of a job.

    Attributes:
        answered: requests that the server counts as completed.
        missing: requests without a line.
        broken: unreadable lines.
        strange: lines for no request of the job.
        repeated: further lines for the same request.
    """

    answered: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    broken: int = 0
    strange: int = 0
    repeated: int = 0

    def unknown(self, state: BatchState) -> int:
        """Return how many of the missing requests the server may have done, and charged.

        Each completed one must have an answer. If the server does not count, or counts fewer than
        there are, each missing one may be done.
        """
        if state.completed is None or (
            state.completed < len(self.answered) and state.end == "completed"
        ):
            return len(self.missing)
        return min(len(self.missing), max(0, state.completed - len(self.answered)))


def read_lines(paths: Iterable[Path]) -> Iterator[ResultLine | None]:
    """Yield the content of each line, None for an unreadable one."""
    for path in paths:
        with open(path, "rb") as file:
            for line in file:
                line = line.removeprefix(_BOM).strip()
                if line:
                    yield _read_line(line)


def count_results(paths: Iterable[Path], keys: Collection[str]) -> ResultCounts:
    """Count the lines of result files against the requests of a job."""
    result = ResultCounts()
    for line in read_lines(paths):
        if line is None:
            result.broken += 1
        elif line.key not in keys:
            result.strange += 1
        else:
            place = result.answered if line.is_answer else result.failed
            result.repeated += line.key in place
            place.add(line.key)
    result.failed -= result.answered
    result.missing = set(keys) - result.answered - result.failed
    return result


def outcome_of(
    line: ResultLine, connection: Connection, sent: dict[str, Any]
) -> ChatReply | Problem:
    """Return the reply that a line holds to a request of the body `sent`, or why it holds none."""
    if line.is_answer:
        return connection.read(line.key, json.dumps(line.body))
    error = line.error or line.body
    inner = error.get("error", error) if isinstance(error, dict) else error
    code = inner.get("code") if isinstance(inner, dict) else None
    shown = connection.hide(json.dumps(error))[:200]
    if code in NOT_DONE:
        return Problem("transient", f"stopped: {code}", cost="unsent")
    status = line.status or _status(code)
    if status is not None and status >= 400:
        return connection.status_problem(status, error, {}, sent=sent)
    if code and isinstance(code, str):  # a word that may have a class of its own
        known = connection.status_problem(400, error, {}, sent=sent)
        return replace(known, cost="unknown")
    return Problem("transient", f"odd result line: {shown}", cost="unknown")


def request_of(key: str, body: dict[str, Any]) -> ChatRequest:
    """Return the request whose body is in a batch file; what was not sent is None."""
    limits = [body.get(name) for name in ("max_completion_tokens", "max_tokens")]
    return ChatRequest(
        key=key,
        messages=body["messages"],
        max_tokens=next((limit for limit in limits if isinstance(limit, int)), NO_LIMIT),
        temperature=body.get("temperature"),
        top_p=body.get("top_p"),
        seed=body.get("seed"),
        response_format=body.get("response_format"),
    )


def _read_line(line: bytes) -> ResultLine | None:
    try:
        item = json.loads(line)
        key, error, answer = item["custom_id"], item.get("error"), item.get("response")
        if not isinstance(key, str):
            return None
    except REFUSALS:
        return None
    status, body = None, answer
    if isinstance(answer, dict):
        status, body = _status(answer.get("status_code")), answer.get("body")
        if body is None and "choices" in answer:  # servers that leave the envelope out
            body = answer
    if not error and body is None:
        return None
    return ResultLine(key, status, body, error)


def _status(value: Any) -> int | None:
    try:
        status = int(value)
    except REFUSALS:
        return None
    return status if 100 <= status < 600 else None
