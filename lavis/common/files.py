"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO


class AtomicFile:
    """A binary file that replaces its target when the `with` block ends without an error."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self.file: BinaryIO

    def __enter__(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self._temporary, "wb", buffering=1 << 18)
        return self.file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file under a temporary name, then rename it."""
    with AtomicFile(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
