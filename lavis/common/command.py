"""How every command ends: one line for an error that its user can fix, and an exit status.

status  meaning
0       done
1       it ran and failed, or nothing could be done: disk, memory, a lost process, no usable record;
        a checking command found a fault
2       refused before it began: flags, config, input files
130     interrupted (Ctrl-C)
141     the reader of its output has gone (`| head`)

Our own bugs keep their traceback; `LAVIS_TRACEBACK=1` shows that of every error.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec

from lavis.common.errors import ConfigError, DataError, RunError

DONE, FAILED, REFUSED, INTERRUPTED, NO_READER = 0, 1, 2, 130, 141
RANK_SECONDS = 5.0  # how long a rank waits for rank 0 to fail in the same way

_P = ParamSpec("_P")
_SYSTEM = {
    errno.ENOSPC: "the disk is full; free some space and give the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and give the same command again",
    errno.EFBIG: "larger than files may be here (ulimit -f)",
    errno.EROFS: "the file system is read-only; name another folder",
    errno.EACCES: "permission denied; change its rights, or name another place",
    errno.EPERM: "permission denied; change its rights, or name another place",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "is a file, where a folder is needed; name another place",
    errno.ENOTDIR: "is a file, where a folder is needed; name another place",
    errno.EISDIR: "is a folder, where a file is needed; name another place",
    errno.ENOTEMPTY: "is a folder that is not empty; name another place",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) or lower run.num_workers",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EADDRINUSE: "the port is in use; name another",
}
_MEMORY = (
    "out of memory{place}; lower run.batch_size_train or run.batch_size_eval, run.num_workers, or "
    "take a smaller model or image size"
)
# Torch's messages on memory in plain RuntimeErrors: its own on CPU, and shared memory in loaders.
_MEMORY_TEXTS = re.compile(
    r"can't allocate memory|not enough memory|CUDA out of memory|insufficient shared memory"
    r"|DataLoader worker .* (is killed by signal|exited unexpectedly)|CUBLAS_STATUS_ALLOC_FAILED"
)
_FROM_LOADER = re.compile(r"Caught \w+ in DataLoader worker process")
_LAST_RAISED = re.compile(r"^[\w.]+: (.*(?:\n(?!\s).*)*)\Z", re.MULTILINE)


def command(main: Callable[_P, int | None]) -> Callable[_P, int]:
    """Wrap a command's main function: it returns an exit status and raises our own bugs only.

    Under a launcher rank 0 reports for all; another rank reports only a different failure.
    """

    @functools.wraps(main)
    def run(*args: _P.args, **options: _P.kwargs) -> int:
        try:
            status = main(*args, **options) or DONE
            sys.stdout.flush()  # here, where a closed pipe can still be distinguished from an error
            return status
        except KeyboardInterrupt:
            if os.environ.get("LAVIS_TRACEBACK"):
                raise
            if _rank() == 0:
                _write("interrupted")
            return INTERRUPTED
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _has_no_reader():
                return NO_READER
            outcome = explain(error)
            if outcome is None or os.environ.get("LAVIS_TRACEBACK"):
                raise
            status, text = outcome
            _speak(text, isinstance(error, RunError) and error.is_consequence)
            return status

    run.is_command = True  # type: ignore[attr-defined]
    return run


def explain(error: Exception) -> tuple[int, str] | None:
    """Return exit status and text of an error that its user can fix, or None for our own bugs."""
    if isinstance(error, ConfigError | DataError):
        return REFUSED, _original(str(error))
    if isinstance(error, RunError):
        return FAILED, _line(_original(str(error)))
    if _is_memory(error):
        place = re.search(r"GPU \d+|cuda:\d+", str(error))
        return FAILED, _MEMORY.format(place=f" on {place[0]}" if place else "")
    if isinstance(error, OSError):
        return FAILED, _of_system(error)
    if isinstance(error, ImportError) and not (error.name or "lavis").startswith("lavis"):
        return FAILED, f"{_line(str(error))}; install the package {error.name}"
    if _is_of("sqlite3", "OperationalError", error):
        return FAILED, f"index of a corpus: {_line(str(error))}"
    if _is_of("torch.distributed", "DistError", error):
        return FAILED, f"the processes cannot talk to each other: {_line(str(error))}"
    return None


def _of_system(error: OSError) -> str:
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    reason = _SYSTEM.get(error.errno or 0) or error.strerror or _original(str(error))
    return f"{place}{_line(reason)}"


def _is_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or _is_of("torch", "OutOfMemoryError", error):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and bool(_MEMORY_TEXTS.search(str(error)))


def _is_of(module: str, name: str, error: Exception) -> bool:
    """Return whether an error is of a class that only a module loaded before can have raised."""
    cls = getattr(sys.modules.get(module), name, None)
    return isinstance(cls, type) and isinstance(error, cls)


def _original(text: str) -> str:
    """Return an error's message from before torch wrapped it in a loader process."""
    if not _FROM_LOADER.match(text):
        return text
    last = _LAST_RAISED.search(text.rstrip())
    return last[1] if last else _line(text)


def _line(text: str) -> str:
    return " ".join(text.split())


def _has_no_reader() -> bool:
    """Return whether the output's reader has gone; then nothing more is reported."""
    output = select.poll()
    output.register(1, select.POLLOUT)
    gone = any(events & (select.POLLERR | select.POLLHUP) for _, events in output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at the end
    return gone


def _rank() -> int:
    text = os.environ.get("RANK", "0")
    return int(text) if text.isdigit() else 0


def _speak(text: str, is_consequence: bool) -> None:
    rank = _rank()
    if _is_reported(rank, text, is_consequence):
        return
    _write(f"error: {text}" if rank == 0 else f"error on rank {rank}: {text}")


def _is_reported(rank: int, text: str, is_consequence: bool) -> bool:
    """Note this process's failure, and return whether rank 0 reported the same one.

    Before the processes have joined it cannot be noted: where rank 0 fails too, the launcher ends
    this process while it waits.
    """
    dist = sys.modules.get("lavis.common.dist")
    if dist is not None and dist.has_joined():
        alike = dist.failed_alike(rank, text, RANK_SECONDS, any_reason=is_consequence)
        return bool(alike)
    if rank:
        time.sleep(RANK_SECONDS)
    return False


def _write(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.write(f"{text}\n")


Place = str | os.PathLike[str]


def at_least(least: int) -> Callable[[str], int]:
    """Return a `type` for argparse: whole numbers of at least `least`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} found, expected {least} or more")
        return value

    return number


def check_outputs(outputs: Iterable[Place | None], inputs: Iterable[Place] = ()) -> None:
    """Raise `ConfigError` for an output that is also an input or another output, by any name."""
    read = {os.path.realpath(path) for path in inputs}
    written: set[str] = set()
    for path in outputs:
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in read:
            raise ConfigError(f"{Path(path)}: is read by this command; name another output")
        if real in written:
            raise ConfigError(f"{Path(path)}: would be written twice; name two files")
        written.add(real)
