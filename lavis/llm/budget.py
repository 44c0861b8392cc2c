"""Hard caps on requests, tokens and money, kept over restarts by a ledger written beforehand.

Before a request is sent, a line reserves the most it can cost; afterwards a line corrects it by
what the server counted. A process that is killed in between leaves a reservation, which counts in
full at the next start: what the server did with that request is not known. So totals never say
less than was spent, and no cap is passed.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from lavis.common.errors import ConfigError
from lavis.common.refusals import REFUSALS
from lavis.common.storage import write_text
from lavis.llm.config import CapsConfig, LlmConfig

logger = logging.getLogger(__name__)

FSYNC_SECONDS = 5.0  # as the journal's
MILLION = 1_000_000
KEPT = "batch:"  # reservations that outlive a process: the server still works on them


class BudgetReached(RuntimeError):
    """A cap would be passed by the next request; the message names it."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What was spent.

    Attributes:
        requests: sent, failed attempts included.
        prompt_tokens: of prompts.
        completion_tokens: of replies.
        cost: money; 0 where no price is known.
        unknown: requests whose cost no server told, counted at the most they can have cost.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unknown: int = 0

    @property
    def tokens(self) -> int:
        """Return tokens of prompts and replies together."""
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Totals, sign: int = 1) -> Totals:
        """Return the sum (the difference with `sign` -1), field by field."""
        return Totals(
            self.requests + sign * other.requests,
            self.prompt_tokens + sign * other.prompt_tokens,
            self.completion_tokens + sign * other.completion_tokens,
            self.cost + sign * other.cost,
            self.unknown + sign * other.unknown,
        )


class Ledger:
    """Running totals of one folder; one process at a time, any number of threads.

    Raises:
        ConfigError: another process holds the ledger.
    """

    def __init__(self, folder: Path, config: LlmConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock_file = FileLock(folder / "ledger.lock", thread_local=False)
        try:
            self._lock_file.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"{folder}: another process spends from this ledger; wait for it, or choose "
                "another run.output_dir"
            ) from None
        self._caps: CapsConfig = config.caps
        self._price, self._factor = config.price, config.price_factor
        self._path = folder / "ledger.jsonl"
        self._changed = threading.Condition()
        self._reached = ""
        self._mine: set[str] = set()  # reservations that this process can settle
        self._spent, self._open = _read(self._path)
        for name in [name for name in self._open if not name.startswith(KEPT)]:
            self._spent = self._spent.plus(replace(self._open.pop(name), unknown=1))
        self._running = _sum(self._spent, self._open.values())  # with what is reserved
        self._file: TextIO = self._compact()
        self._last_sync = time.monotonic()

    def totals(self) -> Totals:
        """Return what was spent and what is reserved, over all starts."""
        with self._changed:
            return self._running

    def pending(self) -> list[str]:
        """Return the names of open reservations."""
        with self._changed:
            return list(self._open)

    def reservation(self, name: str) -> Totals:
        """Return what is set aside under a name; nothing where it is settled."""
        with self._changed:
            return self._open.get(name, Totals())

    def adopt(self, names: Iterable[str]) -> None:
        """Take over reservations of an earlier process, which this one will settle."""
        with self._changed:
            self._mine.update(name for name in names if name in self._open)

    def reserve(self, name: str, prompt_tokens: int, max_tokens: int, *, wait: bool = True) -> bool:
        """Set aside the most that a request can cost, before it is sent.

        Args:
            name: of the reservation, new.
            prompt_tokens: a bound.
            max_tokens: of the reply.
            wait: where a cap is in the way, wait for other requests to turn out cheaper.

        Returns:
            Whether it is reserved; False only where `wait` is False and others are on their way.

        Raises:
            BudgetReached: a cap would be passed, whatever the others cost.
        """
        wanted = self._amount(prompt_tokens, max_tokens)
        with self._changed:
            while True:
                if self._reached:
                    raise BudgetReached(self._reached)
                cap = self._exceeded(wanted)
                if not cap:
                    break
                if cap.startswith("max_requests") or not self._mine:
                    self._reached = cap
                    self._changed.notify_all()
                    raise BudgetReached(cap)
                if not wait:
                    return False
                self._changed.wait()
            self._open[name] = wanted
            self._running = self._running.plus(wanted)
            self._mine.add(name)
            self._write({"reserve": name, "totals": asdict(wanted)})
        return True

    def settle(self, name: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Replace a reservation by what the server counted."""
        self._close(name, self._amount(prompt_tokens, completion_tokens))

    def free(self, name: str) -> None:
        """Note that a request was sent and cost nothing: the server refused it."""
        self._close(name, Totals(requests=1))

    def forfeit(self, name: str) -> None:
        """Count a reservation in full: nobody knows what the server did."""
        with self._changed:
            wanted = self._open.get(name, Totals())
        self._close(name, replace(wanted, unknown=1))

    def cancel(self, name: str) -> None:
        """Give a reservation back: the request was never sent."""
        self._close(name, Totals())

    def close(self) -> None:
        """Bring everything to the disk and let other processes in."""
        with self._changed:
            if not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
        self._lock_file.release()

    def _amount(self, prompt_tokens: int, completion_tokens: int) -> Totals:
        cost = 0.0
        if self._price is not None:
            cost = prompt_tokens * self._price.input + completion_tokens * self._price.output
        return Totals(1, prompt_tokens, completion_tokens, cost * self._factor / MILLION)

    def _exceeded(self, wanted: Totals) -> str:
        after = self._running.plus(wanted)
        caps = self._caps
        for name, value, cap in (
            ("max_requests", after.requests, caps.max_requests),
            ("max_tokens", after.tokens, caps.max_tokens),
            ("max_cost", after.cost, caps.max_cost),
        ):
            if cap is not None and value > cap + 1e-9:
                return f"{name} ({cap:g}) is reached"
        return ""

    def _close(self, name: str, amount: Totals) -> None:
        with self._changed:
            if name not in self._open:
                return
            self._running = self._running.plus(self._open.pop(name), -1).plus(amount)
            self._mine.discard(name)
            self._spent = self._spent.plus(amount)
            self._write({"close": name, "totals": asdict(amount)})
            self._changed.notify_all()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()  # survives a SIGKILL from here on
        if time.monotonic() - self._last_sync >= FSYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._last_sync = time.monotonic()

    def _compact(self) -> TextIO:
        """Write totals and open reservations as a new file, and leave it open to append."""
        lines: list[dict[str, Any]] = [{"close": "", "totals": asdict(self._spent)}]
        lines += [{"reserve": k, "totals": asdict(v)} for k, v in self._open.items()]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        return open(self._path, "a", encoding="utf-8")


def read_totals(folder: Path) -> Totals:
    """Return what a folder's ledger says, without opening it for spending."""
    spent, waiting = _read(folder / "ledger.jsonl")
    return _sum(spent, waiting.values())


def _sum(first: Totals, more: Iterable[Totals]) -> Totals:
    for amount in more:
        first = first.plus(amount)
    return first


def _read(path: Path) -> tuple[Totals, dict[str, Totals]]:
    """Return what is settled, and what is open; a torn last line was never acted upon."""
    spent = Totals()
    waiting: dict[str, Totals] = {}
    if not path.is_file():
        return spent, waiting
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                amount = Totals(**line["totals"])
            except REFUSALS:
                if text.endswith("\n"):
                    raise ConfigError(
                        f"{path}, line {number}: damaged; what was spent is not known. Look at "
                        "the provider's bill, then delete the file to count from nothing"
                    ) from None
                break
            if "reserve" in line:
                waiting[line["reserve"]] = amount
            else:
                waiting.pop(line["close"], None)
                spent = spent.plus(amount)
    return spent, waiting
