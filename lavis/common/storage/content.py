"""A file's content as a digest: the identity of an input, wherever it lies, whoever touched it.

Name, size and change time do not tell one content from another: a file can be edited to the same
size and its time be set back, two models' weights are of one size, and a copy has another time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from lavis.common.errors import DataError
from lavis.common.storage.cache import Cache, make_key

VERSION = 1
_CHUNK = 1 << 22  # bytes read at a time
_REMEMBERED = 1 << 20  # bytes; digests of smaller files are not kept: reading is faster
_SETTLED = 3.0  # seconds: a file that changed just now could change again within its time stamp
_TRIES = 3


class FileState(NamedTuple):
    """What the system says of a file; equal states of one path mean that nobody wrote to it.

    Attributes:
        size: bytes.
        mtime_ns: change time, which anybody can set back.
        ctime_ns: time of the last change to content, name or rights, which nobody can set.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


def file_state(path: str | os.PathLike[str]) -> FileState:
    """Return a file's state; raises `OSError` where there is none."""
    status = os.stat(path)
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def cache_home() -> Path:
    """Return the folder of this machine's caches: `LAVIS_CACHE` or the user's cache."""
    return Path(os.environ.get("LAVIS_CACHE") or "~/.cache/lavis").expanduser()


def content_digest(path: str | os.PathLike[str]) -> str:
    """Return the BLAKE2b digest of a whole file, 32 hexadecimal digits.

    A large file is read once: its digest is kept in `cache_home()` under path, inode, size, change
    time and status time, the last of which no edit can set back.

    Raises:
        DataError: it cannot be read, or somebody writes to it all the time.
    """
    try:
        for _ in range(_TRIES):
            before = file_state(path)
            known = _recall(path, before)
            if known is not None:
                return known
            digest = _read(path)
            if file_state(path) == before:
                _remember(path, before, digest)
                return digest
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    raise DataError(f"{path}: it changes while it is read; start again when it is finished")


def folder_digest(folder: str | os.PathLike[str]) -> str:
    """Return a digest of all names and content below a folder; `DataError` for unreadable files."""
    root = Path(folder)
    state = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = os.fsencode(path.relative_to(root)).hex()
        state.update(f"{name} {content_digest(path)}\n".encode())
    return state.hexdigest()


def _read(path: str | os.PathLike[str]) -> str:
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _key(path: str | os.PathLike[str], state: FileState) -> str:
    real = os.fsencode(os.path.realpath(path)).hex()  # a name may be no UTF-8
    return make_key("content", VERSION, path=real, inode=os.stat(path).st_ino, state=list(state))


def _recall(path: str | os.PathLike[str], state: FileState) -> str | None:
    if state.size < _REMEMBERED:
        return None
    kept = Cache(cache_home()).get(_key(path, state))
    return None if kept is None else kept.decode("ascii")


def _remember(path: str | os.PathLike[str], state: FileState, digest: str) -> None:
    newest = max(state.mtime_ns, state.ctime_ns) / 1e9
    if state.size < _REMEMBERED or time.time() - newest < _SETTLED:
        return
    with contextlib.suppress(OSError):  # no cache: the file is read again by the next start
        Cache(cache_home()).put(_key(path, state), digest.encode("ascii"))
