"""The lines of a ledger: expenses, reservations and servers' bills; on disk first.

    {"close": "", "totals": {...}, "bills": {...}, "absorbed": [...]}    spent by earlier starts
    {"reserve": NAME, "totals": {...}, "bound": [...], ...}              before a request is sent
    {"close": NAME, "totals": {...}, "bill": [MODEL, ...]}               its actual cost

A line is one write, so a process that is killed leaves whole lines and at most a torn last one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from lavis.common.errors import REFUSALS, ConfigError, RunError, finite
from lavis.common.storage.atomic import write_text
from lavis.llm.money.billing import Bills, PromptBound

FSYNC_SECONDS = 5.0  # as the journal's
KEPT = "batch:"  # reservations that outlive a process: the server still works on them
_SCOPE = "|"  # between the folder of a client and a reservation's own name


@dataclass(frozen=True, slots=True)
class Totals:
    """What was spent.

    Attributes:
        requests: sent, failed attempts included.
        cost: money; 0 if no price is known.
        unknown: requests of unreported cost, charged at their bound.
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

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Totals) -> Totals:
        return Totals(*(one - two for one, two in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Reservation:
    """The most that a request on its way can cost, and what its bill is compared with.

    Attributes:
        bound: of the prompt; None in an earlier version.
        max_tokens: of the reply.
        price: money for a million tokens of prompt and reply, discounts applied.
        model: name among the bills.
    """

    amount: Totals
    bound: PromptBound | None = None
    max_tokens: int = 0
    price: tuple[float, float] = (0.0, 0.0)
    model: str = ""

    def to_json(self, name: str) -> dict[str, Any]:
        """Return its line."""
        line: dict[str, Any] = {"reserve": name, "totals": asdict(self.amount)}
        if self.bound is not None:
            line |= {"bound": astuple(self.bound), "max_tokens": self.max_tokens}
            line |= {"price": self.price, "model": self.model}
        return line

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Reservation:
        """Return what a line says; raises one of `REFUSALS` for anything else."""
        amount = _totals(line["totals"])
        if "bound" not in line:
            return cls(amount)
        price = (float(line["price"][0]), float(line["price"][1]))
        bound = PromptBound(*line["bound"])
        return cls(amount, bound, int(line["max_tokens"]), price, str(line["model"]))


@dataclass
class LedgerState:
    """The sum of the lines of one or several ledgers.

    Attributes:
        waiting: name -> open reservation; see `reserve` and `close`; `reserved` is their sum.
        absorbed: names of other ledgers whose totals are included.
    """

    spent: Totals = Totals()
    waiting: dict[str, Reservation] = field(default_factory=dict)
    reserved: Totals = Totals()
    bills: dict[str, Bills] = field(default_factory=dict)
    absorbed: set[str] = field(default_factory=set)

    def total(self) -> Totals:
        """Return what is spent and what is reserved."""
        return self.spent + self.reserved

    def reserve(self, name: str, item: Reservation) -> None:
        """Count a reservation."""
        self.waiting[name] = item
        self.reserved += item.amount

    def close(self, name: str, amount: Totals) -> None:
        """Replace a reservation, if there is one of this name, by its cost."""
        item = self.waiting.pop(name, None)
        if item is not None:  # an empty sum is exact
            self.reserved = self.reserved - item.amount if self.waiting else Totals()
        self.spent += amount

    def bills_of(self, model: str) -> Bills:
        """Return the bills of a model, empty ones if it is new."""
        return self.bills.setdefault(model, Bills())

    def read(self, path: Path) -> LedgerState:
        """Add a ledger's lines but a torn last one (never acted on); `ConfigError` if damaged."""
        if not path.is_file():
            return self
        with open(path, "rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    self._take(json.loads(text))
                except REFUSALS:
                    if text.endswith(b"\n"):
                        raise ConfigError(
                            f"{path}, line {number}: damaged; what was spent is not known. Look "
                            "at the provider's bill, then delete the file to count from nothing"
                        ) from None
                    break
        return self

    def lines(self) -> list[dict[str, Any]]:
        """Return the state in as few lines as possible."""
        bills = {model: each.to_json() for model, each in self.bills.items()}
        first = {"close": "", "totals": asdict(self.spent), "bills": bills}
        first["absorbed"] = sorted(self.absorbed)
        return [first, *(item.to_json(name) for name, item in self.waiting.items())]

    def _take(self, line: Mapping[str, Any]) -> None:
        if "reserve" in line:
            self.reserve(line["reserve"], Reservation.from_json(line))
            return
        amount = _totals(line["totals"])
        for model, node in line.get("bills", {}).items():
            self.bills[model] = Bills.from_json(node)
        if "bill" in line:
            model, bound, most, tokens = line["bill"]
            self.bills_of(model).add(PromptBound(*bound), most, (tokens[0], tokens[1]))
        self.absorbed.update(line.get("absorbed", []))
        self.close(line["close"], amount)


class LedgerFile:
    """A ledger's file to append to, rewritten from `state`; raises `OSError` if unwritable."""

    def __init__(self, path: Path, state: LedgerState) -> None:
        self.path = path
        write_text(path, "".join(json.dumps(line) + "\n" for line in state.lines()))
        self._file: BinaryIO = open(path, "ab", buffering=0)
        self._last_sync = time.monotonic()
        self._broken = ""

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line; on return it survives a SIGKILL of this process.

        Raises:
            RunError: the disk is full, or another fault of the file; nothing more may be sent.
        """
        if not self._broken:
            data = json.dumps(line).encode("ascii") + b"\n"
            try:
                if self._file.write(data) != len(data):
                    raise OSError("only a part of a line was written")
                if time.monotonic() - self._last_sync >= FSYNC_SECONDS:
                    os.fsync(self._file.fileno())
                    self._last_sync = time.monotonic()
                return
            except (OSError, ValueError) as error:  # ValueError: closed
                self._broken = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"{self.path}: what is spent cannot be written down ({self._broken}); nothing more is "
            "sent. Mend that and give the same command again"
        )

    def close(self) -> None:
        """Flush to disk."""
        if not self._file.closed:
            if not self._broken:
                os.fsync(self._file.fileno())
            self._file.close()


def scoped(scope: str, name: str) -> str:
    """Return a reservation's name among those of all clients."""
    return f"{scope}{_SCOPE}{name}" if scope else name


def unscoped(scope: str, name: str) -> str | None:
    """Return a reservation's own name, None where it is another client's."""
    owner, _, own = name.rpartition(_SCOPE)
    return own if owner == scope else None


def is_kept(name: str) -> bool:
    """Return whether a reservation outlives its process."""
    return name.rpartition(_SCOPE)[2].startswith(KEPT)


def _totals(node: Mapping[str, Any]) -> Totals:
    """Return totals as a line has them; raises one of `REFUSALS` where they are none."""
    values = {name: finite(value) for name, value in node.items()}
    if any(value is None or value < 0 for value in values.values()):
        raise ValueError("a number from 0 was expected")
    return Totals(**node)
