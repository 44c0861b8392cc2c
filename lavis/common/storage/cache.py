"""Content-addressed files that many processes share: images, vision features, replies.

A key is a hash of everything the bytes depend on, so an entry never changes and never goes stale.
An entry is written under a temporary name and renamed, so a reader sees all of it or none of it; a
file that is damaged all the same (a full disk, a copy cut short) fails its checksum and counts as a
miss. Two writers of one key write the same bytes, and the last rename wins.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.storage.atomic import AtomicFile

MAGIC = b"lavis-cache-1\n"
_DIGEST = 16  # bytes of BLAKE2b over the content


def make_key(kind: str, version: int | str, **parts: Any) -> str:
    """Return the key of an entry: `<kind>-<hash>`.

    Args:
        kind: what the entry is, a word that may stand in a file name, such as `vision_features`.
        version: changes when the code that makes the bytes changes them.
        parts: everything else the bytes depend on; JSON-able, in any order.

    Raises:
        ValueError: `kind` cannot stand in a file name.
        TypeError: a part cannot be written as JSON.
    """
    if not kind.replace("_", "").isalnum():
        raise ValueError(f"cache kind {kind!r}: use letters, digits and '_'")
    text = json.dumps([kind, version, parts], sort_keys=True)
    return f"{kind}-{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}"


class Cache:
    """Folder of entries by key; safe for any number of reading and writing processes."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Return where the entry of a key is kept (256 folders a kind, so that none is huge)."""
        kind, _, digest = key.rpartition("-")
        return self.root / kind / digest[:2] / digest

    def get(self, key: str) -> bytes | None:
        """Return the bytes of an entry, or None where it is missing, torn or damaged."""
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        start = len(MAGIC) + _DIGEST
        if not data.startswith(MAGIC) or len(data) < start:
            return None
        content = data[start:]
        return content if _digest(content) == data[len(MAGIC) : start] else None

    def put(self, key: str, content: bytes) -> None:
        """Write an entry; a reader in any process sees the old one or the whole new one."""
        with AtomicFile(self.path(key), sync=False) as file:  # a torn entry is a miss
            file.write(MAGIC + _digest(content))
            file.write(content)

    def get_array(self, key: str) -> np.ndarray | None:
        """Return an array written by `put_array`, or None as `get` does."""
        content = self.get(key)
        return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)

    def put_array(self, key: str, array: np.ndarray) -> None:
        """Write an array with its shape and type; `ValueError` if it holds Python objects."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.put(key, buffer.getvalue())

    def __contains__(self, key: str) -> bool:
        """Return whether a file of this key is there; only reading it tells if it is whole."""
        return self.path(key).is_file()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()
