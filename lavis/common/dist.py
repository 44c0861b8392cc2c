"""Who this process is among its ranks, and barriers that name the ranks that do not come.

Works under plain python, torchrun and `accelerate launch`, on CPU (gloo) and CUDA (nccl). Gradients
travel over the process group; all else (barriers, python objects, heartbeats) goes through the
launcher's key-value store, which can tell a missing rank from a slow one.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as torch_dist

from lavis.common.errors import ConfigError, DataError, RunError

logger = logging.getLogger(__name__)

T = TypeVar("T")
_TARGET: ContextVar[torch.device | None] = ContextVar("target device", default=None)

NOTE_SECONDS = 60.0  # how often a waiting rank logs for whom it waits


class HungRankError(RunError):
    """A rank has ended, or gave no sign of progress for `run.timeout_minutes`."""

    is_consequence = True


class StrayRankError(RuntimeError):
    """Two ranks wait at different barriers: they disagree on the run's state."""


def rank() -> int:
    """Return this process's number: from the process group, else the launcher, else 0."""
    return torch_dist.get_rank() if has_joined() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    if has_joined():
        return torch_dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Return whether this is rank 0, the one that writes results."""
    return rank() == 0


def has_joined() -> bool:
    """Return whether this process has joined others."""
    return torch_dist.is_available() and torch_dist.is_initialized()


def failed_alike(me: int, text: str, seconds: float, *, any_reason: bool = False) -> bool:
    """Note why this process ends, and return whether rank 0 ends for the same reason.

    Args:
        seconds: how long a rank waits for rank 0 to note a reason.
        any_reason: whatever rank 0 noted is enough.
    """
    try:
        store = torch_dist.distributed_c10d._get_default_store()
        if me == 0:
            store.set("lavis/failed", text)
            return False
        end = time.monotonic() + seconds
        while not store.check(["lavis/failed"]):
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return any_reason or store.get("lavis/failed").decode() == text
    except (RuntimeError, ValueError):  # the store has gone with its process
        return False


def share_of_mean(count: torch.Tensor) -> torch.Tensor | float:
    """Return the factor of a mean over `count` items by which the average over ranks is exact.

    Every rank must call this.
    """
    if not has_joined():
        return 1.0
    total = count.detach().to(torch.float32, copy=True)
    torch_dist.all_reduce(total)
    return count * torch_dist.get_world_size() / total.clamp(min=1)


def make_run_id() -> str:
    """Return `yyyymmddTHHMMSS-xxxx`, local time and four random hexadecimal digits."""
    return f"{datetime.now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def pick_device(device: str) -> torch.device:
    """Return this process's device, for CUDA that of `LOCAL_RANK`; `ConfigError` without CUDA."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "run.device: 'cuda' found, but torch sees no CUDA device; use auto or cpu"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local % torch.cuda.device_count())


@contextmanager
def building_for(device: torch.device) -> Iterator[None]:
    """Set the device that models built inside the block will run on."""
    token = _TARGET.set(device)
    try:
        yield
    finally:
        _TARGET.reset(token)


def target_device() -> torch.device:
    """Return the device that is built for: that of `building_for`, else CUDA where there is any.

    Code that chooses a precision while loading uses this, not whether the machine has a GPU.
    """
    return _TARGET.get() or pick_device("auto")


def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's generators of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass
class World:
    """One process's view of all of them; every method is a no-op on a single process.

    Attributes:
        run_id: made on rank 0, the same on every rank.
        limit: seconds without progress after which a rank counts as hung.
    """

    rank: int
    size: int
    device: torch.device
    run_id: str = field(default_factory=make_run_id)
    limit: float = 1800.0
    heartbeat: Heartbeat | None = None
    _meetings: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def beat(self, where: str) -> None:
        """Note progress; costs nothing, a thread publishes the latest note."""
        if self.heartbeat is not None:
            self.heartbeat.beat(where)

    def barrier(self, what: str) -> None:
        """Wait until every rank is here.

        Args:
            what: named in the log and in the error.

        Raises:
            HungRankError: a rank that is not here made no progress within the limit.
            StrayRankError: a rank meets for something else.
        """
        self._meet(what, None)

    def gather(self, value: Any, what: str = "gather") -> list[Any]:
        """Return the picklable values of all ranks, by rank, on every rank."""
        return self._meet(what, value)

    def broadcast(self, value: Any, what: str = "broadcast") -> Any:
        """Return rank 0's picklable value on every rank."""
        return self._meet(what, value if self.is_main else None)[0]

    def on_main(self, make: Callable[[], T], what: str) -> T:
        """Return what `make` returns on rank 0, the only one that calls it, on every rank.

        For what must not differ between ranks, such as which work is left, and for what only one
        of them may write.

        Raises:
            ConfigError, DataError, RunError, OSError: on every rank, as `make` on rank 0.
        """
        value, refusal = None, None
        if self.is_main:
            try:
                value = make()
            except (ConfigError, DataError, RunError, OSError) as error:
                refusal = error
        result: T
        result, refusal = self.broadcast((value, refusal), what)
        if refusal is not None:
            raise refusal
        return result

    def explain(self, error: Exception, where: str) -> Exception:
        """Return `error`, or a `HungRankError` naming the ranks behind a failed collective."""
        behind = "" if self.heartbeat is None else self.heartbeat.behind()
        if not behind:
            return error
        return HungRankError(f"{where}: {behind}; the collective reported: {error}")

    def leave(self) -> None:
        """Tell the others that this process ends; rank 0 may hold the store, so it goes last."""
        if self.heartbeat is not None:
            self.heartbeat.leave()
            self.heartbeat = None

    def close(self) -> None:
        """Leave, and take the process group down."""
        if self.heartbeat is not None:
            self.leave()
            torch_dist.destroy_process_group()

    def _meet(self, what: str, value: Any) -> list[Any]:
        if self.heartbeat is None:
            return [value]
        self.heartbeat.beat(f"waiting at '{what}'")
        number, self._meetings = self._meetings, self._meetings + 1
        values = self.heartbeat.meet(number, value, what)
        self.heartbeat.beat(f"past '{what}'")
        return values


class Heartbeat:
    """Heartbeats and barriers of the ranks, over the process group's key-value store.

    A thread publishes this rank's last note; the others see by their own clocks how long it has not
    changed.
    """

    def __init__(self, store: Any, *, rank: int, size: int, limit: float) -> None:
        self._store = store
        self._rank, self._size, self._limit = rank, size, limit
        self._count, self._where = 0, "start"
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._stop = threading.Event()
        self._interval = min(5.0, limit / 10)
        self._publish()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._thread.start()

    def beat(self, where: str) -> None:
        """Note progress."""
        self._count, self._where = self._count + 1, where

    def meet(self, number: int, value: Any, what: str) -> list[Any]:
        """Leave a value at a meeting point, wait for every rank, and return what each has left.

        Raises:
            StrayRankError: a rank came for something else than `what`.
        """
        keys = [f"meet/{number}/{other}" for other in range(self._size)]
        try:
            self._store.set(keys[self._rank], pickle.dumps((what, value)))
            self._wait(keys, what)
            if number > 0:  # every rank is past the meeting before this one
                self._store.delete_key(f"meet/{number - 1}/{self._rank}")
            pairs = [pickle.loads(self._store.get(key)) for key in keys]
        except torch_dist.DistError as error:
            raise HungRankError(
                f"{what}: rank {self._rank} lost the store that rank 0 or the launcher keeps, so "
                f"that process has ended; see its log ({error})"
            ) from error
        strays = [f"rank {other} at '{its}'" for other, (its, _) in enumerate(pairs) if its != what]
        if strays:
            raise StrayRankError(
                f"rank {self._rank} is at '{what}' while {', '.join(strays[:8])}: the processes do "
                "not do the same work; they must start the same command on the same files"
            )
        return [its_value for _, its_value in pairs]

    def behind(self) -> str:
        """Name the ranks that have noted less progress than this one, or ''."""
        time.sleep(1.5 * self._interval)  # let the notes of ranks that are alive come in
        late = []
        for other in range(self._size):
            count, _, where = self._note(other).partition(b"|")
            if other != self._rank and int(count) < self._count:
                late.append(f"rank {other} (last heard at: {where.decode()})")
        return f"no answer from {', '.join(late)}" if late else ""

    def leave(self) -> None:
        """Stop the thread; rank 0 waits for the others, at most ten seconds."""
        self._stop.set()
        self._thread.join(timeout=2 * self._interval)
        try:
            self._store.set(f"left/{self._rank}", b"1")
            end = time.monotonic() + (10.0 if self._rank == 0 else 0.0)
            keys = [f"left/{other}" for other in range(self._size)]
            while time.monotonic() < end and not self._store.check(keys):
                time.sleep(0.02)
        except torch_dist.DistError:
            return  # the store has gone with its process; nothing is left to agree on

    def _wait(self, keys: list[str], what: str) -> None:
        start = logged = checked = time.monotonic()
        pause = 0.002
        self._seen.clear()
        while not self._store.check(keys):
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)
            now = time.monotonic()
            if now - checked < self._interval:
                continue
            checked = now
            missing = [other for other, key in enumerate(keys) if not self._store.check([key])]
            ended = [other for other in missing if self._store.check([f"left/{other}"])]
            if ended:
                raise HungRankError(f"{what}: rank {ended[0]} has ended before; see its log")
            silent = [(other, self._silence(other, start)) for other in missing]
            hung = [self._tell(*each) for each in silent if each[1] > self._limit]
            if hung:
                raise HungRankError(f"{what}: " + "; ".join(hung))
            if missing and now - logged > NOTE_SECONDS:
                logged = now
                message = "; ".join(self._tell(*each) for each in silent[:8])
                logger.warning("waiting at '%s' for %d ranks: %s", what, len(missing), message)

    def _tell(self, other: int, quiet: float) -> str:
        where = self._note(other).partition(b"|")[2].decode()
        return f"rank {other} has made no progress for {quiet:.0f} s, last at: {where}"

    def _silence(self, other: int, start: float) -> float:
        """Seconds since this rank saw another's note change, or since it began to look."""
        now, note = time.monotonic(), self._note(other)
        last = self._seen.get(other)
        if last is None or last[0] != note:
            self._seen[other] = (note, start if last is None else now)
        return now - self._seen[other][1]

    def _note(self, other: int) -> bytes:
        key = f"heartbeat/{other}"
        return self._store.get(key) if self._store.check([key]) else b"0|not started"

    def _publish(self) -> None:
        self._store.set(f"heartbeat/{self._rank}", f"{self._count}|{self._where}")

    def _watch(self) -> None:
        published = -1
        while not self._stop.wait(self._interval):
            try:
                if self._count != published:
                    published = self._count
                    self._publish()
            except Exception:  # the store went with its process: the main thread will report it
                return


def start(device: str = "auto", timeout_minutes: float = 30.0) -> World:
    """Join the other processes that the launcher started, if any; once for each process group.

    Args:
        timeout_minutes: after so long without progress a rank is reported as hung, and a
            collective that waits for it fails.
    """
    chosen = pick_device(device)
    limit = timeout_minutes * 60
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return World(0, 1, chosen, limit=limit)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not torch_dist.is_initialized():
        # transformers would read weights on one process only; under FSDP each cuts its own part
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        backend = "cuda:nccl,cpu:gloo" if chosen.type == "cuda" else "gloo"
        torch_dist.init_process_group(backend, timeout=timedelta(seconds=limit))
    me, size = torch_dist.get_rank(), torch_dist.get_world_size()
    store = torch_dist.distributed_c10d._get_default_store()
    if me == 0:
        run_id = make_run_id()
        store.set("lavis/run_id", run_id)
    else:
        store.wait(["lavis/run_id"], timedelta(seconds=limit))
        run_id = store.get("lavis/run_id").decode()
    scoped = torch_dist.PrefixStore(f"lavis/{run_id}", store)
    heartbeat = Heartbeat(scoped, rank=me, size=size, limit=limit)
    heartbeat.beat(f"joined on {socket.gethostname()}")
    return World(me, size, chosen, run_id, limit, heartbeat)
