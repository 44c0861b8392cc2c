"""The ledger of an output folder: every reservation and settlement of every client, on disk first.

Before a request is sent, a line reserves the most it can cost; afterwards a line corrects it by the
server's counts. A process that is killed in between leaves a reservation, which is charged in full
at the next start, since the outcome is unknown. So totals are never below what was spent, as far as
servers report it. One process at a time has a ledger, with any number of threads and clients
(`lavis.llm.money.budget`).
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis.common.errors import ConfigError
from lavis.llm.config import CapsConfig
from lavis.llm.money.ledger_file import (
    LedgerFile,
    LedgerState,
    Reservation,
    Totals,
    is_kept,
    scoped,
    unscoped,
)

MILLION = 1_000_000
_BUSY = "another process spends from this ledger; wait for it, or choose another run.output_dir"


class Ledger:
    """Running totals of one output folder; one process at a time, any number of clients.

    Attributes:
        changed: condition held to read or change anything below; notified of every settlement.
        state: what is spent, reserved and billed.
        mine: names of reservations that this process can settle.
        caps: the strictest of all clients.

    Args:
        folder: of `ledger.jsonl`.
        rank: of this process. Ranks beside the first write files of their own, which the next
            start adds up; caps hold for one process only.
        older: ledgers of an earlier version, imported once.

    Raises:
        ConfigError: another process holds the ledger, or a line of it is damaged.
    """

    def __init__(self, folder: Path, *, rank: int = 0, older: Sequence[Path] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.caps = folder, CapsConfig()
        self.changed = threading.Condition()
        self.mine: set[str] = set()
        name = f"ledger-rank{rank}-{secrets.token_hex(4)}" if rank else "ledger"
        self._lock = self._take(folder / f"{name}.lock")
        self._others_live = False
        try:
            self.state = LedgerState().read(folder / f"{name}.jsonl")
            taken = [] if rank else self._absorb(older)
            self._count_lost()
            self._file = LedgerFile(folder / f"{name}.jsonl", self.state)
            for path in taken:  # their totals are on disk in ours
                path.unlink(missing_ok=True)
        except BaseException:
            self._lock.release()
            raise

    def limit(self, caps: CapsConfig) -> None:
        """Apply these caps to every request of every client too: the strictest one counts."""
        values: dict[str, Any] = {}
        for name in ("max_requests", "max_tokens", "max_cost"):
            both = (getattr(self.caps, name), getattr(caps, name))
            values[name] = min((cap for cap in both if cap is not None), default=None)
        self.caps = CapsConfig(**values)
        if self._others_live and self.caps != CapsConfig():
            raise ConfigError(f"{self.folder}: {_BUSY}")

    def spent(self) -> Totals:
        """Return what was spent, without reservations."""
        with self.changed:
            return self.state.spent

    def reserved(self) -> Totals:
        """Return what is reserved for requests on their way."""
        with self.changed:
            return self.state.reserved

    def close(self) -> None:
        """Flush to disk and unlock the ledger."""
        with self.changed:
            self._file.close()
        self._lock.release()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _take(self, path: Path) -> FileLock:
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{path.parent}: {_BUSY}") from None
        return lock

    def _absorb(self, older: Sequence[Path]) -> list[Path]:
        """Import what other processes left; returns the files that may be deleted afterwards."""
        left: list[Path] = []
        for path in sorted(self.folder.glob("ledger-rank*.jsonl")):
            lock = FileLock(path.with_suffix(".lock"), thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:  # a rank of this run or of another
                self._others_live = True
                continue
            lock.release()
            left.append(path)
        for path in [*left, *older]:
            name = os.path.relpath(path, self.folder)
            if name in self.state.absorbed:
                continue
            scope = os.path.dirname(name)
            other = LedgerState().read(path)
            self.state.spent += other.spent
            for key, item in other.waiting.items():
                self.state.reserve(scoped(scope, key), item)
            for model, bills in other.bills.items():
                self.state.bills.setdefault(model, bills)
            self.state.absorbed.add(name)
        gone = {name for name in self.state.absorbed if not (self.folder / name).exists()}
        self.state.absorbed -= gone
        return [*left, *(path.with_suffix(".lock") for path in left)]

    def _count_lost(self) -> None:
        """Charge in full what a killed process was waiting for: the outcome is unknown."""
        for name in [name for name in self.state.waiting if not is_kept(name)]:
            self.state.close(name, self.forfeited(self.state.waiting[name]))

    def forfeited(self, item: Reservation) -> Totals:
        """Return the most that a request can have cost, as far as is known now."""
        if item.bound is None:
            return replace(item.amount, unknown=1)
        most = self.state.bills_of(item.model).most(item.bound, item.max_tokens)
        return replace(amount_of(most, item.price), unknown=1)

    def exceeded(self, amount: Totals) -> str:
        """Return why a request of this cost may not be sent, or ''."""
        spent, total, caps = self.state.spent, self.state.total(), self.caps
        for name, cap in (
            ("requests", caps.max_requests),
            ("tokens", caps.max_tokens),
            ("cost", caps.max_cost),
        ):
            used, after = getattr(spent, name), getattr(total, name)
            more = getattr(amount, name)
            if cap is not None and after + more > cap + 1e-9:
                text = f"max_{name} ({_figure(cap)}) is reached: {_figure(used)} spent"
                if spent.unknown and name != "requests":
                    text += f" ({spent.unknown} requests of unknown cost counted at their most)"
                return (
                    f"{text}, {_figure(max(0, after - used))} reserved for requests on their way, "
                    f"and the next one can take {_figure(more)}"
                )
        return ""

    def reserve(self, name: str, item: Reservation) -> None:
        """Write and count a reservation; the caller holds `changed`."""
        self._file.append(item.to_json(name))
        self.state.reserve(name, item)
        self.mine.add(name)

    def settle(self, name: str, amount: Totals, bill: list[object] | None = None) -> None:
        """Replace an open reservation by its cost and `bill`; the caller holds `changed`."""
        line = {"close": name, "totals": asdict(amount)}
        self._file.append(line if bill is None else {**line, "bill": bill})
        self.state.close(name, amount)
        self.mine.discard(name)
        self.changed.notify_all()

    def waits_for(self, scope: str) -> bool:
        """Return whether pending requests will free budget by themselves.

        A batch of another client does not count: its results are not read while this one waits.
        """
        return any(unscoped(scope, name) is not None or not is_kept(name) for name in self.mine)


def open_ledger(output_dir: str | Path, *, rank: int = 0) -> Ledger:
    """Return the ledger of an output folder, `llm/ledger.jsonl`, which all clients of a run share.

    Ledgers of an earlier version, one for each writer of a verbalization, count too.
    """
    output = Path(output_dir)
    return Ledger(output / "llm", rank=rank, older=_older(output))


def folder_totals(output_dir: str | Path) -> Totals:
    """Return the totals of an output folder's ledger, without opening it for spending."""
    output = Path(output_dir)
    return read_totals(output / "llm", _older(output))


def read_totals(folder: Path, older: Sequence[Path] = ()) -> Totals:
    """Return the totals of the ledger in a folder, without opening it for spending."""
    state = LedgerState().read(folder / "ledger.jsonl")
    others = [*sorted(folder.glob("ledger-rank*.jsonl")), *older]
    counted = (p for p in others if os.path.relpath(p, folder) not in state.absorbed)
    return sum((LedgerState().read(path).total() for path in counted), state.total())


def _older(output: Path) -> list[Path]:
    return sorted(output.glob("clients/*/*/ledger.jsonl"))


def amount_of(tokens: tuple[int, int], price: tuple[float, float]) -> Totals:
    """Return the totals of one request from its (prompt, reply) tokens and their prices."""
    return Totals(1, *tokens, (tokens[0] * price[0] + tokens[1] * price[1]) / MILLION)


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
