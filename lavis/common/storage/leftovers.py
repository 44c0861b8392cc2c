"""Leftover temporaries of killed processes, and the names that identify their writers.

A temporary's name holds a hash of its host, the number of its process and when that began.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

logger = logging.getLogger(__name__)

# A folder may be shared by machines that cannot see each other's processes: what another machine
# writes counts as left behind only after so many days without a change.
LEFTOVER_DAYS = 3
_LONGEST = 255  # bytes of a file name
_PART = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}\.part", re.DOTALL)


def remove_leftovers(folder: str | os.PathLike[str], *, depth: int = 0) -> int:
    """Remove what killed processes left of files and folders that they were writing.

    Args:
        folder: looked through; nothing happens where there is none.
        depth: how many levels of folders below it are looked through too.

    Returns:
        How many files and folders were removed; the log names them.
    """
    removed, size = 0, 0
    inner = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return 0
    for entry in entries:
        match = _PART.fullmatch(entry.name)
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            if match is None:
                inner += [entry.path] if is_folder and depth else []
            elif _is_left(match, entry):
                status = entry.stat(follow_symlinks=False)
                size += _size(entry.path) if is_folder else status.st_size
                remove(entry.path, os.getpid())
                removed += 1
        except OSError:  # another process removes them too
            continue
    if removed:
        logger.warning(
            "%s: removed %d unfinished file(s), %.1f MB, of killed processes",
            *(folder, removed, size / 1e6),
        )
    return removed + sum(remove_leftovers(each, depth=depth - 1) for each in inner)


@functools.lru_cache(maxsize=4096)
def sweep_once(folder: str) -> None:
    """Remove leftovers once a process and folder: the listing of a large one takes time."""
    remove_leftovers(folder)


def part_name(target: Path) -> Path:
    """Return a new name beside the target, hidden, and telling host, process and its start."""
    start = _process_start(os.getpid()) or "0"
    end = f".{_host()}-{os.getpid()}-{start}-{secrets.token_hex(4)}.part"
    name = os.fsencode(target.name)[: _LONGEST - len(end) - 1]
    return target.with_name(f".{os.fsdecode(name)}{end}")


def _is_left(match: re.Match[str], entry: os.DirEntry[str]) -> bool:
    """Return whether the writer of a temporary has certainly ended, or has for very long."""
    host, process, start = match.groups()
    if host == _host():
        now = _process_start(int(process))
        return now is None or (now != start and "0" not in (now, start))
    age = time.time() - entry.stat(follow_symlinks=False).st_mtime
    return age > LEFTOVER_DAYS * 24 * 3600


@functools.lru_cache(maxsize=1)
def _host() -> str:
    """Return a hash that is the same for processes that can see each other, and for no others.

    Host names alone may be shared, by containers above all, and process numbers are counted anew
    in each container and after each start of the machine.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.blake2b("|".join(parts).encode(), digest_size=4).hexdigest()


def _process_start(process: int) -> str | None:
    """Return when a process of this machine began, `0` where unknown, None where it has ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return "0" if _is_alive(process) else None
    fields = status.rpartition(b")")[2].split()  # the name before may hold anything
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def _size(folder: str) -> int:
    return sum(
        os.stat(os.path.join(place, name), follow_symlinks=False).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def remove(path: str, process: int) -> None:
    """Remove a file or folder; a forked copy of its writer does nothing."""
    if process != os.getpid():
        return
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
