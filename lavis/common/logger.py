"""Log lines, metric meters and progress, for rank 0 of any number of processes."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger(__name__)

Totals = dict[str, tuple[float, int]]  # name -> (sum, count)


def setup_logging(rank: int = 0, *, level: int = logging.INFO, file: Path | None = None) -> None:
    """Send `lavis` log lines to stderr, and rank 0's to `file`; other ranks only log warnings."""
    root = logging.getLogger("lavis")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    tag = "" if rank == 0 else f"[rank {rank}] "
    line = logging.Formatter(f"%(asctime)s %(levelname)s {tag}%(message)s", "%H:%M:%S")
    handlers: list[logging.Handler] = [_TqdmHandler()]
    if file is not None and rank == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(line)
        root.addHandler(handler)
    root.setLevel(level if rank == 0 else logging.WARNING)


class _LogFile(logging.FileHandler):
    """The log's file, without a traceback for each line that a full disk refuses.

    The run's own writes fail too, and that is reported.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore lines that the system refused to write."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _TqdmHandler(logging.Handler):
    """Writes above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class Meters:
    """Running sums of named scalars, kept on their devices.

    `update` never waits for the device; `take` copies all sums to the host at once.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def update(self, values: Mapping[str, Tensor | float]) -> None:
        """Add one value to each name; tensors must hold one element."""
        for name, value in values.items():
            kept = value.detach().float().reshape(()) if isinstance(value, Tensor) else value
            have = self._sums.get(name)
            if have is None:
                self._sums[name] = torch.as_tensor(kept, dtype=torch.float32).clone()
                self._counts[name] = 1
            else:
                have.add_(kept)
                self._counts[name] += 1

    def take(self) -> Totals:
        """Return name -> (sum, count) since the last call, and start again from nothing."""
        names = list(self._sums)
        by_device: dict[torch.device, list[str]] = {}
        for name in names:
            by_device.setdefault(self._sums[name].device, []).append(name)
        sums: dict[str, float] = {}
        for group in by_device.values():  # one copy for each device
            stacked = torch.stack([self._sums[name] for name in group])
            sums.update(zip(group, stacked.tolist(), strict=True))
        taken = {name: (sums[name], self._counts[name]) for name in names}
        self._sums, self._counts = {}, {}
        return taken


def merge_totals(parts: Iterable[Totals]) -> Totals:
    """Add up sums and counts, of several ranks or several intervals, name by name."""
    merged: Totals = {}
    for part in parts:
        for name, (total, count) in part.items():
            have = merged.get(name, (0.0, 0))
            merged[name] = (have[0] + total, have[1] + count)
    return merged


def means(totals: Totals) -> dict[str, float]:
    """Return the mean of each name."""
    return {name: total / count for name, (total, count) in totals.items() if count}


class RunLog:
    """Metrics as JSON lines, floats always: `metrics.jsonl`, and LAVIS' `log.txt` by epoch.

    Args:
        folder: None to write nothing, as every rank but 0 does.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def metrics(self, kind: str, values: Mapping[str, Any]) -> None:
        """Append `{"kind": ..., "time": seconds, **values}` to `metrics.jsonl`."""
        self._append("metrics.jsonl", {"kind": kind, "time": round(time.time(), 3), **values})

    def epoch(self, split: str, values: Mapping[str, Any]) -> None:
        """Append one line to `log.txt`, its keys prefixed with the split's name."""
        self._append("log.txt", {f"{split}_{name}": value for name, value in values.items()})

    def config(self, tree: Mapping[str, Any]) -> None:
        """Append the resolved configuration to `log.txt` as indented JSON."""
        self._write("log.txt", json.dumps(tree, indent=4, default=str) + "\n")

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        self._write(name, json.dumps(_plain(line)) + "\n")

    def _write(self, name: str, text: str) -> None:
        if self._folder is not None:
            with open(self._folder / name, "a", encoding="utf-8") as file:
                file.write(text)


def _plain(value: Any) -> Any:
    """Turn tensors and numpy scalars into numbers, and NaN and infinities into None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Progress:
    """How far a job is, how fast and how long still: a bar on a terminal, else a line at times.

    Args:
        total: amount of the whole job.
        what: name of the job.
        unit: plural of what is counted.
        done: amount that an earlier start finished; not part of the speed.
        shown: False on every rank but 0.
        every: seconds between plain lines.
    """

    def __init__(
        self,
        total: int,
        what: str,
        *,
        unit: str = "steps",
        done: int = 0,
        shown: bool = True,
        every: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done = self._first = done
        self._start = self._last = time.monotonic()
        self._every = every
        self._shown = shown
        self._bar: tqdm | None = None
        out = stream or sys.stderr
        if shown and out.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=what, unit=f" {unit}", file=out, leave=False
            )

    def add(self, amount: int = 1, note: str = "") -> None:
        """Count `amount` more as done."""
        self.done += amount
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif self._shown and time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            logger.info("%s", self.line(note))

    def rate(self) -> float:
        """Return the amount per second since this start."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def line(self, note: str = "") -> str:
        """Return the state in one line."""
        share = 100 * self.done / max(self.total, 1)
        rate = self.rate()
        left = (self.total - self.done) / rate if rate > 0 else math.inf
        text = (
            f"{self.what}: {self.done}/{self.total} {self.unit} ({share:.0f} %), "
            f"{rate:.3g} {self.unit}/s, {format_seconds(left)} left"
        )
        return f"{text}, {note}" if note else text

    def close(self) -> None:
        """Remove the bar and log the time the job took."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._shown:
            took = format_seconds(time.monotonic() - self._start)
            count = f"{self.what}: {self.done}/{self.total} {self.unit}"
            logger.info("%s in %s (%.3g %s/s)", count, took, self.rate(), self.unit)


def format_seconds(seconds: float) -> str:
    """Return `1:02:03`, `2:03`, or `?` where it is unknown."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
