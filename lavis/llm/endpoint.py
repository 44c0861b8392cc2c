"""An OpenAI-compatible server: many requests at once, within limits, retried with care.

Every attempt goes: reserve the most it can cost, wait for the limiter's turn, send, store the
reply, settle. A reply is stored by the thread that received it, before that thread sends anything
else.
"""

from __future__ import annotations

import logging
import random
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count
from typing import Any, ClassVar

from lavis.common.registry import llms
from lavis.llm.base import Ask, Backend, ChatReply
from lavis.llm.budget import BudgetReached
from lavis.llm.config import OpenAIConfig
from lavis.llm.desk import Desk
from lavis.llm.failures import Problem
from lavis.llm.limiter import RateLimiter
from lavis.llm.wire import Connection

logger = logging.getLogger(__name__)


@llms.register("openai")
class OpenAIBackend:
    """Sends requests from a pool of threads.

    Args:
        config: the server and its limits.
        desk: where replies are kept and money is counted.
    """

    keeps_replies: ClassVar[bool] = True
    config_class: ClassVar[type[OpenAIConfig]] = OpenAIConfig

    def __init__(self, config: OpenAIConfig, desk: Desk) -> None:
        self._config, self._desk = config, desk
        self._connection = Connection(config)
        self._limiter = RateLimiter(config.rpm, config.tpm)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="llm")
        self._futures: set[Future[ChatReply]] = set()
        self._names = count()
        self.window = 2 * config.concurrency

    @classmethod
    def build(cls, config: OpenAIConfig, desk: Desk) -> Backend:
        """Return the backend of `config.mode`."""
        if config.mode == "batch":
            from lavis.llm.batch import BatchBackend

            return BatchBackend(config, desk)
        return cls(config, desk)

    def submit(self, ask: Ask) -> None:
        """Queue one request."""
        self._futures.add(self._pool.submit(self._work, ask))

    def collect(self) -> list[ChatReply]:
        """Wait for one reply or more."""
        done, self._futures = wait(self._futures, return_when=FIRST_COMPLETED)
        return [future.result() for future in done]

    def close(self) -> None:
        """Wait for replies on their way, which are paid for, and drop what was not sent."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._connection.sdk.close()

    def _work(self, ask: Ask) -> ChatReply:
        """Send a request until there is a reply, or a reason to give up."""
        reason, attempt = "stopped", 0
        while not self._stop.is_set():
            try:
                outcome = self._attempt(ask)
            except BudgetReached as error:
                return ChatReply(ask.content_key, error=str(error), failure="budget")
            if outcome is None:
                break
            if isinstance(outcome, ChatReply):
                return outcome
            reason = outcome.reason
            if outcome.kind == "refused" or outcome.ends_run:
                kind: Any = outcome.kind
                if outcome.ends_run:
                    self._stop.set()  # no use in sending the rest
                return ChatReply(ask.content_key, error=reason, failure=kind)
            if outcome.kind == "transient":  # `simplify` goes on at once, with less
                attempt += 1
                if attempt == self._config.max_attempts:
                    break
                self._wait(outcome, attempt)
        return ChatReply(ask.content_key, error=reason, failure="transient")

    def _attempt(self, ask: Ask) -> ChatReply | Problem | None:
        """Send a request once; None where the backend was closed first."""
        ledger, request = self._desk.ledger, ask.request
        expected = self._desk.counter.estimate(request) + request.max_tokens
        name = f"{ask.content_key}#{next(self._names)}"
        ledger.reserve(name, self._desk.counter.bound(request), request.max_tokens)
        if not self._limiter.acquire(expected, self._stop):
            ledger.cancel(name)
            return None
        body = self._connection.body(request)
        outcome: ChatReply | Problem
        try:
            raw = self._connection.sdk.chat.completions.with_raw_response.create(
                model=body["model"],
                messages=body["messages"],
                extra_body={k: v for k, v in body.items() if k not in ("model", "messages")},
            )
            outcome = self._connection.read(ask.content_key, raw.http_response.text)
        except Exception as error:
            if not self._connection.failed(error):
                raise
            outcome = self._connection.problem_of(error)
        if isinstance(outcome, Problem):
            if outcome.kind == "simplify" and not self._connection.simplify(body):
                outcome = replace(outcome, kind="refused")
            self._desk.failed(name, outcome)
            return outcome
        reply = self._desk.finish(ask.content_key, outcome, request, name)
        self._limiter.correct(reply.prompt_tokens + reply.completion_tokens - expected)
        return reply

    def _wait(self, problem: Problem, attempt: int) -> None:
        """Wait before the next attempt: as the server asks, else longer each time, with jitter."""
        low, high = self._config.min_retry_wait, self._config.max_retry_wait
        seconds = min(high, low * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        if problem.retry_after is not None:
            self._limiter.pause(problem.retry_after)  # for every thread
            seconds = problem.retry_after + random.uniform(0, min(1.0, low))
        logger.info("%s; trying again in %.1f s", problem.reason, seconds)
        self._stop.wait(seconds)
