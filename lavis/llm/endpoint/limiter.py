"""Requests and tokens a minute, and pauses that a server asks for: one limiter for all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Spreads requests evenly: the next starts when the minute's share of the last one is over.

    Args:
        rpm: requests a minute; None for no limit.
        tpm: tokens a minute; None for no limit.
        clock: seconds, rising.
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
        """Wait for a turn of a request of about `tokens`; False where `stop` came first."""
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
        """Start nothing for some seconds: the server said so.

        Returns:
            Whether that is news: no other thread was told of about as long a wait.
        """
        with self._lock:
            until = self._clock() + seconds
            is_news = until > self._paused_until + 1.0
            self._paused_until = max(self._paused_until, until)
        return is_news
