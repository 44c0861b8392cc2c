"""Items of published files, one at a time: lines of JSON, or elements of a JSON array."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lavis.common.errors import DataError, RecordError, data_errors
from lavis.common.storage.foreign import foreign_kind_of
from lavis.datasets.files.json_lists import list_elements
from lavis.datasets.files.records import parse_object


@dataclass(frozen=True, slots=True)
class FileItem:
    """One item of a file.

    Attributes:
        place: `file`, and `line` or `item`, from 1.
        value: the JSON value; None where it is malformed.
        error: why it is malformed.
    """

    place: dict[str, Any]
    value: Any = None
    error: str | None = None


def open_bytes(path: str | Path) -> IO[bytes]:
    """Open a file, unpacked where its name ends in `.gz`, `.zst`, or `.zip` (one JSON file)."""
    name = str(path).lower()
    if name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if name.endswith(".zst"):
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
    if name.endswith(".zip"):
        archive = zipfile.ZipFile(path)
        inner = [one for one in archive.namelist() if one.lower().endswith(".json")]
        if len(inner) != 1:
            raise DataError(f"{path}: {len(inner)} JSON files in it, one was expected")
        return archive.open(inner[0])
    return open(path, "rb")


def begins_with(path: str | Path, mark: bytes) -> bool:
    """Return whether the first non-blank character of a file is `mark`."""
    with open_bytes(path) as file:
        start = file.read(4096).removeprefix(codecs.BOM_UTF8)
        while start and not start.strip():
            start = file.read(4096)
    return start.lstrip().startswith(mark)


def read_items(path: str | Path, key: str | None = None) -> Iterator[FileItem]:
    """Yield a file's items: those of an array, or lines where the file is not one JSON value.

    Args:
        path: `.json`, `.jsonl`, or either as `.gz` or `.zip`.
        key: where the file is one object, the name of its array.

    Raises:
        DataError: not there, packed in another way, or damaged.
    """
    if not os.path.isfile(path):
        raise DataError(f"no such file: {path}")
    kind = foreign_kind_of(path) if os.path.getsize(path) else None
    if kind is not None:
        raise DataError(f"{path} is {kind}")
    name = str(path).lower().removesuffix(".gz")
    with data_errors(f"{path}: cannot be read", zipfile.BadZipFile):
        lines = name.endswith(".jsonl") or (key is None and begins_with(path, b"{"))
        with open_bytes(path) as file:
            if lines:
                yield from _read_lines(file, path)
                return
            with io.TextIOWrapper(file, "utf-8-sig") as text:
                for number, element in enumerate(list_elements(text, key, str(path)), 1):
                    place = {"file": str(path), "item": number}
                    yield FileItem(place, element.value, element.problem or None)


def _read_lines(file: IO[bytes], path: str | Path) -> Iterator[FileItem]:
    for number, line in enumerate(file, 1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not line.strip():
            continue
        place = {"file": str(path), "line": number}
        try:
            yield FileItem(place, parse_object(line))
        except RecordError as error:
            yield FileItem(place, error=error.reason)


def read_list(path: str | Path) -> Iterator[Any]:
    """Yield the items of a file that holds one JSON list, also those that no record could hold.

    Raises:
        DataError: not such a file, cut short or malformed.
    """
    with (
        data_errors(f"{path}: cannot be read", zipfile.BadZipFile),
        io.TextIOWrapper(open_bytes(path), "utf-8-sig") as text,
    ):
        for element in list_elements(text, None, str(path)):
            yield json.loads(element.text) if element.problem else element.value
