"""A server's files and batch jobs over the wire; no field of an answer is trusted to be there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import REFUSALS
from lavis.common.storage.atomic import AtomicFile
from lavis.llm.endpoint.failures import Problem
from lavis.llm.endpoint.network_errors import is_network_error
from lavis.llm.endpoint.wire import Connection

# The documented ends, without what is no letter. All other words mean that it still runs.
ENDS = {
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
RUNNING = frozenset({"validating", "inprogress", "finalizing", "cancelling"})
# Words of servers whose queue has no room: OpenAI "Enqueued token limit reached", Azure "The number
# of enqueued tokens has surpassed the configured limit", both with this code.
NO_ROOM = ("token_limit_exceeded", "enqueued token", "too many enqueued")
_MIN_RATE = 10_000  # bytes a second of a file that is still on its way
_TAIL_BYTES = 1 << 14  # bytes; longer than any key
_PAGES = 100  # of the list of jobs, 100 each


class BatchTrouble(Exception):
    """A call about a file or job failed with `problem`; `status` is 0 without an HTTP answer."""

    def __init__(self, problem: Problem, status: int = 0) -> None:
        super().__init__(problem.reason)
        self.problem, self.status = problem, status


@dataclass(frozen=True)
class LineError:
    """Why the server rejected a job, or a `line` of it (from 1; 0: none named), without secrets."""

    code: str
    message: str
    line: int


@dataclass(frozen=True)
class BatchState:
    """What a server reports of a job.

    Attributes:
        word: its status, as written.
        end: a key of `ENDS`; empty while it runs.
        files: `output` and `error` -> the server's name of the file, if there is one.
        completed: requests with an answer; None if the server does not say.
        failed: requests without one; likewise.
        total: requests; likewise.
        errors: why the job failed.
    """

    word: str
    end: str
    files: dict[str, str]
    completed: int | None
    failed: int | None
    total: int | None
    errors: list[LineError]

    @property
    def is_known(self) -> bool:
        """Return whether the status is a documented one."""
        return bool(self.end) or _letters(self.word) in RUNNING


class BatchServer:
    """Calls about files and jobs; failures raise `BatchTrouble`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._timeout = connection.config.timeout

    def upload(self, path: Path) -> str:
        """Upload a file and return its name at the server."""
        size = path.stat().st_size
        with open(path, "rb") as file:
            calls = self._connection.sdk.files.with_streaming_response
            answer = self._json(calls.create, file=file, purpose="batch")
        received = _count(answer.get("bytes"))
        if received is not None and received < size:
            reason = f"upload cut: the server has {received} of {size} bytes of the file"
            raise BatchTrouble(Problem("transient", reason))
        return self._id(answer)

    def create(self, file_id: str, window: str, name: str) -> str:
        """Create a job from an uploaded file and return its name at the server."""
        answer = self._json(
            self._connection.sdk.batches.with_streaming_response.create,
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window=window,
            metadata={"lavis_job": name},
        )
        return self._id(answer)

    def find(self, file_id: str, name: str) -> str | None:
        """Return the server's name of a job that may have been created, unless it has failed."""
        seen: set[str] = set()
        after: dict[str, str] = {}
        for _ in range(_PAGES):
            calls = self._connection.sdk.batches.with_streaming_response
            page = self._json(calls.list, limit=100, **after)
            jobs = [job for job in page.get("data") or [] if isinstance(job, dict)]
            jobs = [job for job in jobs if str(job.get("id")) not in seen]
            for job in jobs:
                metadata = job.get("metadata")
                named = isinstance(metadata, dict) and metadata.get("lavis_job") == name
                ours = named or (file_id and job.get("input_file_id") == file_id)
                if ours and job.get("id") and self._state(job).end != "failed":
                    return str(job["id"])
            if not jobs or not page.get("has_more"):
                break
            seen.update(str(job.get("id")) for job in jobs)
            after = {"after": str(jobs[-1].get("id"))}
        return None

    def look(self, batch_id: str) -> BatchState:
        """Return the state of a job."""
        return self._state(
            self._json(self._connection.sdk.batches.with_streaming_response.retrieve, batch_id)
        )

    def download(self, file_id: str, path: Path) -> BatchTrouble | None:
        """Write a file of the server without the key; return why it is incomplete, or None."""
        call = self._connection.sdk.files.with_streaming_response.content
        held = b""
        trouble: BatchTrouble | None = None
        with AtomicFile(path) as file:
            try:
                for chunk in self._chunks(call, file_id):
                    # Latin 1 keeps each byte; a key may lie on the border of two chunks.
                    text = (held + chunk).decode("latin-1")
                    held = self._connection.hide(text).encode("latin-1")
                    if len(held) > _TAIL_BYTES:
                        file.write(held[:-_TAIL_BYTES])
                        held = held[-_TAIL_BYTES:]
            except BatchTrouble as error:
                trouble = error
            file.write(held)
        return trouble

    def line_problem(self, error: LineError, sent: dict[str, Any] | None = None) -> Problem:
        """Return why a job, or its line with the body `sent`, was rejected."""
        body = {"error": {"code": error.code, "message": error.message}}
        return self._connection.status_problem(400, body, {}, sent=sent)

    def close(self) -> None:
        """Release connections."""
        self._connection.sdk.close()

    def _chunks(self, call: Any, *args: Any, **options: Any) -> Iterator[bytes]:
        """Yield the body of an answer; one that takes too long counts as none."""
        start, size = time.monotonic(), 0
        try:
            with call(*args, **options) as answer:
                for chunk in answer.iter_bytes():
                    size += len(chunk)
                    yield chunk
                    if time.monotonic() - start > self._timeout + size / _MIN_RATE:
                        reason = f"time-out: {size} bytes in {self._timeout:g} s"
                        raise BatchTrouble(Problem("transient", reason))
        except BatchTrouble:
            raise
        except Exception as error:
            if not is_network_error(error):
                raise
            status = getattr(error, "status_code", 0)
            raise BatchTrouble(self._connection.problem_of(error), status) from None

    def _json(self, call: Any, *args: Any, **options: Any) -> dict[str, Any]:
        content = b"".join(self._chunks(call, *args, **options))
        try:
            answer = json.loads(content)
        except REFUSALS:
            answer = None
        if not isinstance(answer, dict) or (answer.get("error") and not answer.get("id")):
            shown = self._connection.hide(content[:120].decode("utf-8", "replace"))
            raise BatchTrouble(Problem("transient", f"malformed answer: {shown!r}"))
        return answer

    def _id(self, answer: dict[str, Any]) -> str:
        if not answer.get("id"):
            shown = self._connection.hide(json.dumps(answer)[:120])
            raise BatchTrouble(Problem("transient", f"malformed answer: no id in {shown}"))
        return str(answer["id"])

    def _state(self, job: dict[str, Any]) -> BatchState:
        counts = job.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        completed, failed, total = (
            _count(counts.get(name)) for name in ("completed", "failed", "total")
        )
        if not total:  # a server that does not count leaves noughts
            completed = failed = total = None
        files = {name: job.get(f"{name}_file_id") for name in ("output", "error")}
        word = str(job.get("status") or "")
        return BatchState(
            word=self._connection.hide(word)[:40],
            end=ENDS.get(_letters(word), ""),
            files={name: each for name, each in files.items() if each and isinstance(each, str)},
            completed=completed,
            failed=failed,
            total=total,
            errors=self._errors(job.get("errors")),
        )

    def _errors(self, errors: Any) -> list[LineError]:
        items = errors.get("data") or [errors] if isinstance(errors, dict) else errors
        items = items if isinstance(items, list) else [items] if items else []
        return [self._error(item, item if isinstance(item, dict) else {}) for item in items]

    def _error(self, item: Any, fields: dict[str, Any]) -> LineError:
        message = self._connection.hide(str(fields.get("message") or item))[:300]
        return LineError(str(fields.get("code") or ""), message, _count(fields.get("line")) or 0)


def has_no_room(reason: str) -> bool:
    """Return whether an error says that the server takes no more work for now."""
    return any(word in reason.lower() for word in NO_ROOM)


def _letters(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalpha())


def _count(value: Any) -> int | None:
    """Return a whole number from 0, also one written as text; None for all else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if good else None
