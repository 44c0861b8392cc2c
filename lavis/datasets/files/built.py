"""Files that one process builds once from others and every process reads."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lavis.common.storage.atomic import AtomicPath
from lavis.common.storage.content import content_digest

logger = logging.getLogger(__name__)

DEFAULT_CACHE = "~/.cache/lavis/records"


def cache_folder(cache_dir: str | None) -> Path:
    """Return the cache folder, made if need be; a temporary one where that is impossible."""
    folder = Path(cache_dir or DEFAULT_CACHE).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir())
    return folder


def digest_of(parts: Any) -> str:
    """Return a hash of JSON-able values, which names the file built from them."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_identity(path: str | os.PathLike[str]) -> list[str]:
    """Return a file's endings, which choose its reader, and its content hash, wherever it lies."""
    return ["".join(Path(path).suffixes[-2:]).lower(), content_digest(path)]


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Hold a lock file's lock; the system frees it when the process dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("waiting for another process, which writes %s", target)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def built_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return `target`, built by one process while the others wait.

    It is written under another name and renamed, so that a killed build leaves no partial file;
    the next process builds again.

    Args:
        target: its name must change when its content would.
        build: writes the file at the given path.
    """
    if target.exists():
        return target
    with _lock(target):
        if target.exists():
            return target
        with AtomicPath(target) as temporary:
            build(temporary)
    return target
