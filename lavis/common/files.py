"""Former home of `lavis.common.storage`."""

from __future__ import annotations

from pathlib import Path

from lavis.common.storage import AtomicFile, write_bytes, write_text

__all__ = ["AtomicFile", "write_atomically"]


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file; see `write_bytes` and `write_text`."""
    if isinstance(content, str):
        write_text(path, content)
    else:
        write_bytes(path, content)
