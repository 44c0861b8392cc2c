"""Ready images on disk: looked up inside their folder, decoded to RGB."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from lavis.common.errors import REFUSALS, DataError, brief
from lavis.common.pixels import IMAGE_REFUSALS, to_rgb
from lavis.common.storage.content import FileState, content_digest, file_state

READ_AT_MOST = 1 << 28  # bytes of a folder's images that are hashed at a start


def existing_folder(path: str, key: str) -> Path:
    """Return a folder; `DataError`, naming the config key, if it does not exist."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{key}: no such folder: {folder}")
    return folder


def inside(root: Path, name: str) -> Path:
    """Return file `name` of a folder; `DataError` if missing, or a name or link leads outside."""
    path = root / name
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    if not real.startswith(os.path.join(real_root, "")):
        raise DataError(f"{name}: leads out of {root}; name files inside it")
    if not path.is_file():
        raise DataError(f"{name}: no such image in {root}")
    return path


def decode(content: bytes, name: str) -> Image.Image:
    """Return an RGB image from encoded bytes; `DataError` if they are no image, or cut short."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_rgb(image)
    except IMAGE_REFUSALS as error:
        raise DataError(f"{name}: cannot be read as an image: {brief(error)}") from None


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number (from 1) and JSON object of lines that are not blank; others: `DataError`."""
    try:
        file = open(path, "rb")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else brief(error)
        raise DataError(f"{path}: {reason}") from None
    with file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except REFUSALS as error:
                raise DataError(f"{path}, line {number}: not JSON: {brief(error)}") from None
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number}: a JSON object was expected")
            yield number, record


def files_identity(root: Path, names: Iterable[str]) -> str:
    """Return a digest of files of a folder: their names and content.

    Of a folder of more than `READ_AT_MOST` bytes: names, sizes, change and status times, so that
    a start need not read them all.
    """
    digest = hashlib.blake2b(digest_size=16)
    states = {name: _state_of(root / name) for name in sorted(set(names))}
    is_read = sum(state.size for state in states.values() if state) <= READ_AT_MOST
    for name, state in states.items():
        value: Any = None if state is None else list(state)
        if is_read and state is not None:
            value = content_digest(root / name)
        digest.update(json.dumps([os.fsencode(name).hex(), value]).encode())
    return digest.hexdigest()


def _state_of(path: Path) -> FileState | None:
    try:
        return file_state(path)
    except OSError:
        return None
