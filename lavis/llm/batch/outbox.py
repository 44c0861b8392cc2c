"""Requests on their way into batch files, and replies on their way out of them."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.llm.base import ChatReply, PendingRequest
from lavis.llm.batch.job import Job, JobFile, read_body, request_line
from lavis.llm.batch.results import request_of
from lavis.llm.config import OpenAIConfig
from lavis.llm.endpoint.failures import Problem
from lavis.llm.endpoint.wire import Connection
from lavis.llm.money.budget import BudgetReached
from lavis.llm.store import BackendContext

logger = logging.getLogger(__name__)

MAX_HELD = 256  # requests in memory while a cap is in the way; each may show images


@dataclass(frozen=True)
class _HeldLine:
    """A request to be sent again, kept in the file of an earlier job until then."""

    content_key: str
    attempt: int
    path: Path
    offset: int

    def request(self) -> PendingRequest:
        request = request_of(self.content_key, read_body(self.path, self.offset))
        return PendingRequest(self.content_key, request, self.attempt)


class Outbox:
    """Writes requests into the next file as far as the caps allow, and gathers replies.

    Attributes:
        wanted: content keys that the caller waits for.
        owner: content key -> name of the job that has it.
        held: requests that wait until others cost less than their bound.
        ready: replies to return.
        jobs: those whose files are complete, oldest first, until they are done or left.
        root: folder of all jobs.
        ending: why no further request can succeed, once a line says so.
    """

    def __init__(
        self, config: OpenAIConfig, context: BackendContext, connection: Connection
    ) -> None:
        self.config, self.context, self.connection = config, context, connection
        self.root = context.folder / "batches"
        self.wanted: set[str] = set()
        self.owner: dict[str, str] = {}
        self.held: deque[PendingRequest | _HeldLine] = deque()
        self.ready: list[ChatReply] = []
        self.jobs: list[Job] = []
        self.ending: Problem | None = None
        self._next = JobFile(self.root)
        self._left: dict[str, str] = {}  # name of a job -> why it is left for the next start

    @property
    def has_next(self) -> bool:
        """Return whether the next file holds a request."""
        return bool(self._next.job.offsets())

    def put(self, pending: PendingRequest) -> None:
        """Write one request into the next file, unless a job has it."""
        key = pending.content_key
        self.wanted.add(key)
        reason = self._left.get(self.owner.get(key, ""))
        if self.ending is not None:
            self.end(self.ending)
        elif reason is not None:
            self.answer(ChatReply(key, error=reason, failure="transient"))
        elif key not in self.owner:
            self.held.append(pending)
            if len(self.held) == 1:
                self.write_held()

    def write_held(self) -> None:
        """Write held requests in order, up to the first that a cap blocks."""
        while self.held:
            first = self.held[0]
            pending = first if isinstance(first, PendingRequest) else first.request()
            try:
                if not self._write(pending):
                    return
            except BudgetReached as error:
                self.answer(ChatReply(pending.content_key, error=str(error), failure="budget"))
            self.held.popleft()

    def refuse_held(self) -> None:
        """Answer what is held: no job is left that could free budget."""
        reason = "caps: what is reserved for batch jobs that are still at the server reaches them"
        for item in self.held:
            self.answer(ChatReply(item.content_key, error=reason, failure="budget"))
        self.held.clear()

    def seal(self) -> None:
        """Turn the file that is being written into a job."""
        server = str(self.config.identity.get("server", ""))
        self.jobs.append(self._next.seal(server, self.connection.key_hash(self._next.job.name)))
        self._next = JobFile(self.root)

    def again(
        self, job: Job, key: str, problem: Problem, *, counted: bool = True, now: bool = True
    ) -> None:
        """Settle a line that gave no reply, then write it once more or answer with the reason.

        Args:
            job: that has the line.
            key: of the request.
            problem: why there is no reply, and what that cost.
            counted: whether it counts as an attempt.
            now: False leaves it for the next start.
        """
        self.context.failed(job.reservation(key), problem)
        if not self.release(job, key) or key not in self.wanted:
            return
        attempt = job.attempts.get(key, 0) + counted
        kind = problem.kind
        if problem.ends_run:
            self.ending = self.ending or problem
            return
        most = problem.most_attempts or self.config.max_attempts
        if kind == "simplify":
            if self.connection.simplify(job.body(key), problem):
                attempt -= counted
            else:
                most = 2  # the cause is unknown
        if kind == "refused" or attempt >= min(most, self.config.max_attempts) or not now:
            failure: Any = kind if kind == "refused" else "transient"
            self.answer(ChatReply(key, error=problem.reason, failure=failure))
            return
        self.held.append(_HeldLine(key, attempt, job.input, job.offsets()[key]))
        self.write_held()

    def finish(self, job: Job, key: str, reply: ChatReply) -> None:
        """Store a reply, settle it, and make it ready."""
        request = request_of(key, job.body(key))
        reply = self.context.finish(key, reply, request, job.reservation(key))
        self.release(job, key)
        self.answer(reply)

    def release(self, job: Job, key: str) -> bool:
        """Forget that a job has a request; False if another has it."""
        if self.owner.get(key) != job.name:
            return False
        del self.owner[key]
        return True

    def answer(self, reply: ChatReply) -> None:
        """Make a reply ready if the caller waits for it."""
        if reply.key in self.wanted:
            self.wanted.discard(reply.key)
            self.ready.append(reply)

    def leave(self, job: Job, reason: str) -> None:
        """Leave a job's requests for the next start, which resumes the job."""
        self._left[job.name] = reason
        for key in job.offsets():
            if self.owner.get(key) == job.name:
                self.answer(ChatReply(key, error=reason, failure="transient"))

    def drop(self, job: Job) -> None:
        """Forget a job that the server never accepted: nothing was spent."""
        self._cancel(job)
        job.save(state="done")

    def end(self, problem: Problem) -> None:
        """Answer everything that is waited for: no further request can succeed."""
        self.ending = problem
        self.held.clear()
        self.discard_next()
        for key in list(self.wanted):
            failure: Any = problem.kind
            self.answer(ChatReply(key, error=problem.reason, failure=failure))

    def discard_next(self) -> None:
        """Drop the file that is being written and release its reservations."""
        self._cancel(self._next.job)
        self._next.discard()
        self._next = JobFile(self.root)

    def _cancel(self, job: Job) -> None:
        for key in job.offsets():
            self.context.account.cancel(job.reservation(key))
            self.release(job, key)

    def _write(self, pending: PendingRequest) -> bool:
        """Reserve and write a line; False if a cap blocks it for now."""
        key, batch = pending.content_key, self.config.batch
        body = self.connection.body(pending.request)
        line = request_line(key, body)
        if len(line) > batch.max_bytes:
            reason = (
                f"request too large: {len(line):,} bytes in a batch file, which takes "
                f"{batch.max_bytes:,} (llm.batch.max_bytes)"
            )
            self.answer(ChatReply(key, error=reason, failure="refused"))
            return True
        if not self._next.fits(line, batch.max_requests, batch.max_bytes):
            self.seal()
        bound = self.context.counter.bound(pending.request)
        name = self._next.job.reservation(key)
        if not self.context.account.reserve(name, bound, pending.request.max_tokens, wait=False):
            return False
        self._next.add(key, line, pending.attempt)
        self.owner[key] = self._next.job.name
        return True
