"""The reader for each path: compressed lines, JSON lists, tar shards and img2dataset folders.

`.gz`, `.zst` and JSON lists are unpacked once to plain lines in a cache folder, under a name made
from path, size and change time, by one process while others wait.
"""

from __future__ import annotations

import codecs
import glob
import io
import logging
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from lavis.common.errors import DataError, data_errors, printable
from lavis.common.storage.foreign import foreign_kind_of
from lavis.datasets.files.built import built_once, cache_folder, digest_of, file_identity
from lavis.datasets.files.folders import RECORDS, open_folder
from lavis.datasets.files.items import begins_with, open_bytes
from lavis.datasets.files.json_lists import list_elements
from lavis.datasets.files.records import JsonLinesFile, ParquetFile, RecordFile, RecordStore
from lavis.datasets.files.tar_members import PACKED
from lavis.datasets.files.tars import TarFile

logger = logging.getLogger(__name__)

_MOST_SHARDS = 1_000_000  # that a pattern may name: more is a slip of the pen
VERSION = 1  # of the lines that are unpacked
_PACKED_TARS = tuple(
    f".t{end}" for end in ("ar.gz", "gz", "ar.zst", "ar.bz2", "bz2", "ar.xz", "xz")
)
_NO_TEXT = {
    b"\x89PNG\r\n": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"II*\x00": "an image (TIFF)",
    b"MM\x00*": "an image (TIFF)",
    b"RIFF": "an image, sound or film (RIFF)",
    b"%PDF-": "a PDF document",
    b"SQLite": "an SQLite database",
    b"PAR1": "a Parquet table under another name; rename it to .parquet",
}
_UNREADABLE = (".zip", ".7z", ".rar", ".bz2", ".xz", ".csv", ".tsv", ".arrow", ".xlsx", ".pkl")


def open_records(paths: Sequence[str], *, cache_dir: str | None = None) -> RecordStore:
    """Return the rows of files of any form as one sequence.

    Args:
        paths: files, folders, or patterns (`*`, and `{000..012}` as in WebDataset).
        cache_dir: where compressed files are unpacked.

    Raises:
        DataError: a path that matches nothing, or a form that cannot be read.

    Example:
        >>> store = open_records(["corpus-{000..003}.jsonl.gz"])
        >>> store.read(0)["question"]
        ['What', 'is', [3], '?']
    """
    return RecordStore([f for path in expand_paths(paths) for f in open_file(path, cache_dir)])


def open_file(path: str, cache_dir: str | None = None) -> list[RecordFile]:
    """Return the readers of a path, chosen by its name.

    A folder of images is one; a folder of folders or tar shards gives one for each, sorted.

    Raises:
        DataError: not there, or a form that cannot be read.
    """
    if os.path.isdir(path):
        return open_folder(path, lambda inner: open_file(inner, cache_dir))
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such record file or folder")
    kind = foreign_kind_of(path) if os.path.getsize(path) else None
    if kind is not None:
        raise DataError(f"{path} is {kind}")
    name = path.lower()
    if name.endswith(_PACKED_TARS):
        raise DataError(f"{path}: a compressed tar has no random access; unpack it to .tar first")
    if name.endswith(".tar"):
        return [TarFile(path)]
    if name.endswith((".parquet", ".pq")):
        return [ParquetFile(path)]
    if name.endswith(_UNREADABLE):
        raise DataError(
            f"{path}: records are not read from this form; use {', '.join(RECORDS)} or a folder"
        )
    if name.endswith((".gz", ".zst")) and not os.path.getsize(path):
        raise DataError(f"{path}: empty, which no packed file is; copy or download it again")
    if name.endswith((".gz", ".zst")) or _is_json_list(path):
        return [JsonLinesFile(path, _unpacked(path, cache_dir))]
    _check_text(path)
    return [JsonLinesFile(path)]


def expand_paths(paths: Sequence[str]) -> list[str]:
    """Return paths with `{a..b}` and `*` written out, each pattern's matches sorted.

    Raises:
        DataError: a pattern without a match, or a file that is meant twice.
    """
    expanded: list[str] = []
    for plain in (name for path in paths for name in _expand_range(path)):
        is_pattern = any(c in plain for c in "*?[") and not os.path.exists(plain)
        matches = sorted(glob.glob(plain)) if is_pattern else [plain]
        if not matches:
            raise DataError(f"{plain}: no file matches")
        expanded += matches
    seen: dict[str, str] = {}
    for path in expanded:
        other = seen.setdefault(os.path.realpath(path), path)
        if other is not path:
            both = path if other == path else f"{path} (also {other})"
            raise DataError(f"{printable(both)}: named twice; its records would count twice")
    return expanded


def _expand_range(path: str) -> list[str]:
    match = re.search(r"\{(\d{1,12})\.\.(\d{1,12})\}", path)
    if match is None:
        return [path]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    if not 0 < len(numbers) <= _MOST_SHARDS:
        raise DataError(f"{path}: {{{first}..{last}}} names {len(numbers)} files")
    head, tail = path[: match.start()], path[match.end() :]
    return [p for n in numbers for p in _expand_range(f"{head}{n:0{len(first)}d}{tail}")]


def _check_text(path: str) -> None:
    """Refuse a binary file with its cause, rather than call its every line malformed."""
    with open(path, "rb") as file:
        first = file.read(6)
    for mark, kind in PACKED.items():
        if first.startswith(mark):
            raise DataError(f"{path}: {kind} under another name; unpack it, or rename it")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: UTF-16; save it as UTF-8")
    for mark, kind in _NO_TEXT.items():
        if first.startswith(mark):
            raise DataError(f"{path} is {kind}, not a file of records")


def _is_json_list(path: str) -> bool:
    return path.lower().endswith((".json", ".json.gz", ".json.zst")) and begins_with(path, b"[")


def _unpacked(path: str, cache_dir: str | None) -> str:
    """Return a plain-lines copy of a compressed file, made on first use."""
    target = cache_folder(cache_dir) / f"{digest_of([VERSION, *file_identity(path)])}.jsonl"

    def build(temporary: Path) -> None:
        logger.info("unpacking %s to %s", path, target)
        with data_errors(f"{path}: cannot be unpacked"), open(temporary, "wb") as output:
            _unpack(path, output)

    return str(built_once(target, build))


def _unpack(path: str, output: BinaryIO) -> None:
    if not _is_json_list(path):
        with open_bytes(path) as packed:
            shutil.copyfileobj(packed, output, 1 << 20)
        return
    with open_bytes(path) as content, io.TextIOWrapper(content, "utf-8-sig") as file:
        for element in list_elements(file, None, path):
            # As written, in one line: problems are reported when the line is read.
            line = element.text.replace("\n", " ").replace("\r", " ")
            output.write(line.encode() + b"\n")
