"""When to stop a run whose requests all fail alike, instead of trying the rest."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lavis.llm.base import ChatReply
from lavis.llm.endpoint.failures import Problem

PATIENCE = 30.0  # seconds: a server that is restarted is back by then
_MIXED_FACTOR = 3  # times the limit, of failures that are not alike
# Of a failed request; one that failed at an earlier start, too, weighs 1: such are sent first.
_NEW_WEIGHT = 10
# What differs from one message of the same failure to the next: numbers, ids, quoted texts.
_VARIES = re.compile(r"""['"`][^'"`]{0,200}['"`]|(?<![\w-])[\w-]*\d[\w.-]*""")


class Breaker:
    """Counts failures since the last success: of attempts, and of requests that were given up.

    Args:
        limit: failures alike at which to stop.
        path: file of the keys of requests that were given up. Later starts read it: these are tried
            first, and must not keep the rest from being sent.
        has_worked: the server answered at an earlier start: a later one may send nothing but what
            was refused.
        clock: seconds, rising.
    """

    def __init__(
        self,
        limit: int,
        path: Path | None = None,
        *,
        has_worked: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._path, self._clock = limit, path, clock
        self._alike: Counter[str] = Counter()
        self._succeeded = has_worked
        self._lock = threading.Lock()
        self._attempts, self._since = 0, 0.0  # failed in a row, of all threads
        self._known: frozenset[str] = frozenset()
        if path is not None and path.is_file():
            self._known = frozenset(path.read_text("utf-8", "replace").splitlines())

    def attempt_succeeded(self) -> None:
        """Note an attempt that the server answered; any thread may."""
        with self._lock:
            self._attempts = 0

    def attempt_failed(self, problem: Problem) -> bool:
        """Note a failed attempt; return whether retrying is of no use now. Any thread may.

        An answer that asks to wait does not count: the server is alive.
        """
        if problem.retry_after is not None or problem.reason.startswith("HTTP 429"):
            return False
        with self._lock:
            self._since = self._since if self._attempts else self._clock()
            self._attempts += 1
            late = self._clock() - self._since >= PATIENCE
            return self._attempts >= self._limit and late

    def judge(self, replies: Sequence[ChatReply]) -> str:
        """Return why the run should stop, or an empty text.

        Replies that arrive together are judged together: one good one among a thousand of a batch
        shows that the server works. A refusal is a request's own fault: many in a row only mean
        something while no request has succeeded. A filter's verdict is about the content.
        """
        if any(reply.ok for reply in replies):
            self._alike.clear()
            self._succeeded = True
            return ""
        for reply in replies:
            refused = reply.failure == "refused" and not reply.error.startswith("content filter")
            failed = reply.failure == "transient" and not reply.error.startswith("stopped: ")
            if not failed and not (refused and not self._succeeded):
                continue
            self._alike[f"{reply.failure} {alike(reply.error)}"] += self._weight(reply)
            most, total = max(self._alike.values()), self._alike.total()
            if max(most, total / _MIXED_FACTOR) >= self._limit * _NEW_WEIGHT:
                how = "alike" if most >= self._limit * _NEW_WEIGHT else "in one way or another"
                return (
                    f"{self._limit} requests or more in a row failed {how}, the last with: "
                    f"{reply.error}; what was finished is kept, and the same command goes on when "
                    "the cause is mended"
                )
        return ""

    def _weight(self, reply: ChatReply) -> int:
        if reply.key in self._known:
            return 1
        if self._path is not None and reply.failure == "transient":
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(reply.key + "\n")
        return _NEW_WEIGHT


def alike(reason: str) -> str:
    """Return what failures of one cause have in common: class, status and words."""
    status = "".join(re.findall(r"HTTP \d+", reason)[:1])
    return f"{status} {_VARIES.sub('#', reason)}"
