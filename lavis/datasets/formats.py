"""Which reader a path gets: compressed lines, JSON lists, tar shards and img2dataset folders.

`.gz`, `.zst` and JSON lists are unpacked once to plain lines in a cache folder, under a name made
from path, size and change time, by one process while others wait.
"""

from __future__ import annotations

import array
import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lavis.common.errors import DataError, RecordError
from lavis.datasets.built_files import built_once, cache_folder, digest_of, file_identity
from lavis.datasets.pictures import PictureFile
from lavis.datasets.records import JsonLinesFile, ParquetFile, RecordFile, parse_object

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def open_file(path: str, cache_dir: str | None = None) -> list[RecordFile]:
    """Return the readers of a path, chosen by its name.

    A folder of pictures is one; a folder of folders or tar shards gives one for each, sorted.

    Raises:
        DataError: not there, or a form that cannot be read.
    """
    if os.path.isdir(path):
        return _open_folder(path, cache_dir)
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such record file or folder")
    name = path.lower()
    if name.endswith((".tar.gz", ".tgz", ".tar.zst")):
        raise DataError(f"{path}: a compressed tar has no random access; unpack it to .tar first")
    if name.endswith(".tar"):
        return [TarFile(path)]
    if name.endswith((".parquet", ".pq")):
        return [ParquetFile(path)]
    if name.endswith((".gz", ".zst")) or _is_json_list(path):
        return [JsonLinesFile(path, _unpacked(path, cache_dir))]
    return [JsonLinesFile(path)]


def _open_folder(path: str, cache_dir: str | None) -> list[RecordFile]:
    folder = FolderFile(path)
    if len(folder):
        return [folder]
    inner = sorted(
        entry.path
        for entry in os.scandir(path)
        if entry.is_dir() or entry.name.endswith((".tar", ".parquet", ".jsonl"))
    )
    # img2dataset writes NNNNN.tar beside NNNNN.parquet (its own log): the tar holds the rows.
    inner = [p for p in inner if not (p.endswith(".parquet") and f"{p[:-8]}.tar" in inner)]
    if not inner:
        raise DataError(f"{path}: the folder holds no pictures and no record files")
    return [file for entry in inner for file in open_file(entry, cache_dir)]


def _is_json_list(path: str) -> bool:
    if not path.lower().endswith(".json"):
        return False
    with open(path, "rb") as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _unpacked(path: str, cache_dir: str | None) -> str:
    """Return a plain-lines copy of a compressed file, made on first use."""
    target = cache_folder(cache_dir) / f"{digest_of(file_identity(path))}.jsonl"

    def build(temporary: Path) -> None:
        logger.info("unpacking %s to %s", path, target)
        try:
            with open(temporary, "wb") as output:
                _unpack(path, output)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{path}: cannot be unpacked: {error}") from None

    return str(built_once(target, build))


def _unpack(path: str, output: BinaryIO) -> None:
    if path.lower().endswith(".gz"):
        with gzip.open(path, "rb") as packed:
            shutil.copyfileobj(packed, output, 1 << 20)
    elif path.lower().endswith(".zst"):
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(path, "rb"), "zstd") as packed:
            shutil.copyfileobj(packed, output, 1 << 20)
    else:
        with open(path, encoding="utf-8-sig") as file:
            for record in json.load(file):
                output.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


class FolderFile(RecordFile):
    """img2dataset folder: each picture with the record `<key>.json` beside it, sorted by name."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        names = sorted(
            os.fsencode(entry.name)
            for entry in os.scandir(path)
            if entry.name.lower().endswith(PICTURE_SUFFIXES) and not entry.name.startswith(".")
        )
        self._names = np.array(names, dtype=bytes)  # one block of memory, not a million objects

    def __len__(self) -> int:
        return len(self._names)

    def _name(self, row: int) -> str:
        return os.fsdecode(bytes(self._names[row]))

    def read(self, row: int) -> dict[str, Any]:
        stem = os.path.splitext(self._name(row))[0]
        try:
            with open(os.path.join(self.path, f"{stem}.json"), "rb") as file:
                record = parse_object(file.read())
        except FileNotFoundError:
            raise RecordError(f"missing sidecar: {stem}.json") from None
        record.setdefault("key", stem)
        return record

    def picture(self, row: int) -> PictureFile:
        name = self._name(row)
        path = os.path.join(self.path, name)
        shown = f"{os.path.basename(os.path.normpath(self.path))}/{name}"
        inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(self.path), ""))
        if not inside:
            raise RecordError(f"path leaves the image root: {shown!r} is a link out of it")
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise RecordError(f"missing image: {shown}") from None
        return PictureFile(shown, path, status.st_size, status.st_mtime_ns)

    def place(self, row: int) -> dict[str, Any]:
        return {"file": os.path.join(self.path, self._name(row)), "row": row}

    def identity(self) -> dict[str, Any]:
        """Return name, number of pictures, a hash of their names, and the folder's change time."""
        digest = hashlib.blake2b(self._names.tobytes(), digest_size=16).hexdigest()
        name = os.path.basename(os.path.normpath(self.path))
        changed = os.stat(self.path).st_mtime_ns
        return {"name": name, "size": len(self), "names": digest, "mtime_ns": changed}


class TarFile(RecordFile):
    """WebDataset shard: members `<key>.json` and `<key>.<picture>`, read by offset.

    Without a `.json` a member `<key>.txt` is the record `{"txt": ...}`. Rows are the keys in the
    order of the shard. A key with no record, or two, keeps its row.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        rows = array.array("q")
        try:
            for sample in _tar_samples(path):
                rows.extend(sample)
        except tarfile.TarError as error:
            raise DataError(f"{path}: not a tar file, or cut short: {error}") from None
        # header, record offset and size, picture offset and size; -1 where there is none; is text
        self._rows = np.frombuffer(rows, dtype=np.int64).reshape(-1, 6).copy()
        self._mtime_ns = os.stat(path).st_mtime_ns

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> dict[str, Any]:
        _, offset, size, _, _, is_text = self._rows[row].tolist()
        key = self._key(row)
        if offset < 0:
            raise RecordError(f"missing sidecar: {key}.json in {os.path.basename(self.path)}")
        content = self._bytes(offset, size)
        try:
            record = {"txt": content.decode("utf-8")} if is_text else parse_object(content)
        except UnicodeError:
            raise RecordError("malformed line: text that is not UTF-8") from None
        record.setdefault("key", os.path.basename(key))
        return record

    def picture(self, row: int) -> PictureFile | None:
        offset, size = self._rows[row, 3:5].tolist()
        if offset < 0:
            return None
        name = f"{os.path.basename(self.path)}/{self._key(row)}"
        return PictureFile(name, self.path, size, self._mtime_ns, offset)

    def _key(self, row: int) -> str:
        with open(self.path, "rb") as file:
            file.seek(int(self._rows[row, 0]))
            with tarfile.open(fileobj=io.BytesIO(file.read(1 << 14)), mode="r:") as archive:
                member = archive.next()
        return _tar_key(member.name) if member else f"row {row}"

    def _bytes(self, offset: int, size: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


def _tar_key(name: str) -> str:
    """Return a member's name up to the first dot of its last part."""
    folder, _, last = name.rpartition("/")
    stem = last.split(".", 1)[0]
    return f"{folder}/{stem}" if folder else stem


def _tar_samples(path: str) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield (header, record offset and size, picture offset and size, is text) for each key."""
    with tarfile.open(path, "r:") as archive:
        current: str | None = None
        sample = [0, -1, -1, -1, -1, 0]
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else every header stays in memory
            if not member.isfile():
                continue
            key = _tar_key(member.name)
            if key != current:
                if current is not None and max(sample[1], sample[3]) >= 0:
                    yield tuple(sample)  # type: ignore[misc]
                current, sample = key, [member.offset, -1, -1, -1, -1, 0]
            if member.name.lower().endswith(".json"):
                sample[1:3], sample[5] = (member.offset_data, member.size), 0
            elif member.name.lower().endswith(".txt") and sample[1] < 0:
                sample[1:3], sample[5] = (member.offset_data, member.size), 1
            elif member.name.lower().endswith(PICTURE_SUFFIXES):
                sample[3:5] = member.offset_data, member.size
        if current is not None and max(sample[1], sample[3]) >= 0:
            yield tuple(sample)  # type: ignore[misc]
