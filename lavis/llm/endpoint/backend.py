"""An OpenAI-compatible server: concurrent requests, within limits, retried with care.

Each attempt reserves the most it can cost, waits for the rate limiter, sends, stores the reply and
settles. The thread that received a reply stores it before it sends anything else.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

from lavis.common.registry import llms
from lavis.llm.base import Backend, ChatReply, PendingRequest
from lavis.llm.config import OpenAIConfig
from lavis.llm.endpoint.failures import Problem
from lavis.llm.endpoint.network_errors import is_network_error
from lavis.llm.endpoint.transport import MAX_BYTES, Dropped, TooLong
from lavis.llm.endpoint.wire import Connection
from lavis.llm.money.budget import BudgetReached
from lavis.llm.store import BackendContext

logger = logging.getLogger(__name__)

GRACE_SECONDS = 0.5  # at the end, for replies that are nearly here
LOGGED_SECONDS = 5.0  # of a wait that is worth a line


@llms.register("openai")
class OpenAIBackend:
    """Sends requests from a pool of threads."""

    keeps_replies: ClassVar[bool] = True
    config_class: ClassVar[type[OpenAIConfig]] = OpenAIConfig

    def __init__(self, config: OpenAIConfig, context: BackendContext) -> None:
        self._config, self._context = config, context
        self._connection = Connection(config)
        self._transport = self._connection.transport()
        self._limiter = RateLimiter(config.rpm, config.tpm)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="llm")
        self._futures: set[Future[ChatReply]] = set()
        self._names = count()
        self.window = 2 * config.concurrency

    @classmethod
    def build(cls, config: OpenAIConfig, context: BackendContext) -> Backend:
        """Return the backend of `config.mode`."""
        if config.mode == "batch":
            from lavis.llm.batch.backend import BatchBackend

            return BatchBackend(config, context)
        return cls(config, context)

    def submit(self, pending: PendingRequest) -> None:
        """Queue one request."""
        self._futures.add(self._pool.submit(self._work, pending))

    def collect(self) -> list[ChatReply]:
        """Wait for one reply or more."""
        done, self._futures = wait(self._futures, return_when=FIRST_COMPLETED)
        return [future.result() for future in done]

    def halt(self) -> None:
        """Send and retry nothing more; pending replies still arrive."""
        self._stop.set()

    def close(self) -> None:
        """Drop pending requests, after a short grace for what is paid for, and release the rest."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        working = [future for future in self._futures if not future.cancelled()]
        wait(working, timeout=GRACE_SECONDS)
        self._transport.close()
        wait(working, timeout=GRACE_SECONDS)  # they settle what they had reserved
        self._connection.sdk.close()

    def _work(self, pending: PendingRequest) -> ChatReply:
        """Send a request until there is a reply, or a reason to give up."""
        reason, attempt = "stopped: before it was sent", 0
        while not self._stop.is_set():
            try:
                outcome = self._attempt(pending)
            except BudgetReached as error:
                return ChatReply(pending.content_key, error=str(error), failure="budget")
            if outcome is None:
                break
            if isinstance(outcome, ChatReply):
                self._context.breaker.attempt_succeeded()
                return outcome
            outcome = self._bounded(outcome)
            reason = outcome.reason
            if outcome.kind == "refused" or outcome.ends_run:
                kind: Any = outcome.kind
                if outcome.ends_run:
                    self._stop.set()  # no use in sending the rest
                return ChatReply(pending.content_key, error=reason, failure=kind)
            if outcome.kind == "transient":  # `simplify` goes on at once, with less
                attempt += 1
                most = min(self._config.max_attempts, outcome.most_attempts or attempt + 1)
                if self._context.breaker.attempt_failed(outcome) or attempt >= most:
                    break
                self._wait(outcome, attempt)
        return ChatReply(pending.content_key, error=reason, failure="transient")

    def _attempt(self, pending: PendingRequest) -> ChatReply | Problem | None:
        """Send a request once; None if the backend was closed first."""
        ledger, request = self._context.account, pending.request
        name = f"{pending.content_key}#{next(self._names)}"
        bound = self._context.counter.bound(request)
        expected = ledger.estimate(bound) + request.max_tokens
        if not ledger.reserve(name, bound, request.max_tokens, stop=self._stop):
            return None
        if not self._limiter.acquire(expected, self._stop):
            ledger.cancel(name)
            return None
        body, url = self._connection.body(request), self._connection.url(request)
        outcome: ChatReply | Problem
        try:
            answer = self._transport.send(body, url)
            outcome = self._connection.read(pending.content_key, answer, request)
        except Dropped:
            outcome = Problem("transient", "stopped: while it was on its way", cost="unknown")
        except TooLong:
            reason = f"malformed answer: it is longer than {MAX_BYTES >> 20} MB"
            outcome = Problem("transient", reason, cost="unknown", most_attempts=2)
        except Exception as error:
            if not is_network_error(error):
                raise
            outcome = self._connection.problem_of(error, body)
        if isinstance(outcome, Problem):
            if outcome.kind == "simplify" and not self._connection.simplify(body, outcome):
                outcome = replace(outcome, kind="transient", most_attempts=2)
            self._context.failed(name, outcome)
            return outcome
        reply = self._context.finish(pending.content_key, outcome, request, name)
        self._limiter.correct(reply.prompt_tokens + reply.completion_tokens - expected)
        return reply

    def _bounded(self, problem: Problem) -> Problem:
        """Return a problem that stops the run if the server asks for too long a wait."""
        seconds, most = problem.retry_after or 0.0, self._config.max_server_wait
        if problem.kind != "transient" or seconds <= most:
            return problem
        again = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + seconds))
        reason = (
            f"wait: the server asks for one of {duration(seconds)}, longer than "
            f"llm.max_server_wait ({duration(most)}); give the same command again from {again} "
            f"on: {problem.reason}"
        )
        return replace(problem, kind="stopped", reason=reason)

    def _wait(self, problem: Problem, attempt: int) -> None:
        """Wait before the next attempt: as the server asks, else longer each time, with jitter."""
        low, high = self._config.min_retry_wait, self._config.max_retry_wait
        seconds = min(high, low * 2 ** min(attempt - 1, 60)) * random.uniform(0.5, 1.0)
        level = logging.INFO
        if problem.retry_after is not None:
            if self._limiter.pause(problem.retry_after) and problem.retry_after >= LOGGED_SECONDS:
                level = logging.WARNING  # once for all threads
            seconds = problem.retry_after + random.uniform(0, min(1.0, low))
        logger.log(level, "%s; waiting %s for the server", problem.reason, duration(seconds))
        self._stop.wait(seconds)


def duration(seconds: float) -> str:
    """Return seconds in readable form: `0.5 s`, `90 s`, `24 h`."""
    if seconds < 600:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


class RateLimiter:
    """Requests and tokens a minute, spread evenly, and pauses of a server; one for all threads.

    The next request starts when the last one's share of the minute is over.
    """

    def __init__(
        self, rpm: float | None, tpm: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds_a_request = 60 / rpm if rpm else 0.0
        self._seconds_a_token = 60 / tpm if tpm else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next_request = self._next_token = self._paused_until = 0.0

    def acquire(self, tokens: int, stop: threading.Event) -> bool:
        """Wait for a turn of a request of about `tokens`; False if `stop` came first."""
        with self._lock:
            start = max(self._clock(), self._next_request, self._next_token)
            self._next_request = start + self._seconds_a_request
            self._next_token = start + tokens * self._seconds_a_token
        while (wait := max(start, self._paused_until) - self._clock()) > 0:
            if stop.wait(wait):
                return False
        return not stop.is_set()

    def correct(self, tokens: int) -> None:
        """Count `tokens` more (or, below 0, fewer) than were acquired."""
        with self._lock:
            self._next_token += tokens * self._seconds_a_token

    def pause(self, seconds: float) -> bool:
        """Start nothing for some seconds; return whether no other thread knew of as long a wait."""
        with self._lock:
            until = self._clock() + seconds
            is_news = until > self._paused_until + 1.0
            self._paused_until = max(self._paused_until, until)
        return is_news
