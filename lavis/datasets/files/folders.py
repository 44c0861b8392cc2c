"""Folders of records: what is read, what is skipped, and what is refused as ambiguous."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lavis.common.errors import DataError, RecordError, may_pass, printable
from lavis.common.pixels import is_image
from lavis.common.storage.inputs import Input
from lavis.datasets.files.images import ImageFile
from lavis.datasets.files.records import RecordFile, parse_object

logger = logging.getLogger(__name__)

LINES = tuple(f"{end}{packed}" for end in (".jsonl", ".ndjson") for packed in ("", ".gz", ".zst"))
RECORDS = (*LINES, ".parquet", ".pq", ".tar")
_NOTES = (".json", ".JSON")  # of the record beside an image; the first one counts
_SHOWN = 3  # names that a message gives as examples


class FolderFile(RecordFile):
    """img2dataset folder: each image with the record `<key>.json` beside it, sorted by name."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        names = sorted(os.fsencode(e.name) for e in os.scandir(path) if is_image(e.name))
        self._names = np.array(names, dtype=bytes)  # one block of memory, not a million objects
        stems: set[bytes] = set()
        self._shared: set[bytes] = set()  # stems of two images, which one record cannot be of
        for name in names:
            stem = os.path.splitext(name)[0]
            (self._shared if stem in stems else stems).add(stem)

    def __len__(self) -> int:
        return len(self._names)

    def _name(self, row: int) -> str:
        return os.fsdecode(bytes(self._names[row]))

    def read(self, row: int) -> dict[str, Any]:
        stem = os.path.splitext(self._name(row))[0]
        if os.fsencode(stem) in self._shared:
            raise RecordError(f"duplicate image: two images share {printable(stem)}.json")
        record = parse_object(self._sidecar(stem))
        record.setdefault("key", printable(stem))
        return record

    def _sidecar(self, stem: str) -> bytes:
        for ending in _NOTES:
            try:
                with open(os.path.join(self.path, stem + ending), "rb") as file:
                    return file.read()
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = f"unreadable sidecar: {printable(str(error))}"[:200]
                raise RecordError(reason, may_pass=may_pass(error)) from None
        raise RecordError(f"missing sidecar: {printable(stem)}.json")

    def image(self, row: int) -> ImageFile:
        name = self._name(row)
        path = os.path.join(self.path, name)
        shown = printable(f"{os.path.basename(os.path.normpath(self.path))}/{name}")
        inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(self.path), ""))
        if not inside:
            raise RecordError(f"path leaves the image root: {shown!r} is a link out of it")
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise RecordError(f"missing image: {shown}", paths=[path]) from None
        return ImageFile(
            shown, path, status.st_size, status.st_mtime_ns, ctime_ns=status.st_ctime_ns
        )

    def place(self, row: int) -> dict[str, Any]:
        return {"file": printable(os.path.join(self.path, self._name(row))), "row": row}

    def identity(self) -> dict[str, Any]:
        """Return name, number of images and a hash of their names."""
        digest = hashlib.blake2b(self._names.tobytes(), digest_size=16).hexdigest()
        name = printable(os.path.basename(os.path.normpath(self.path)))
        return {"name": name, "size": len(self), "names": digest}

    def inputs(self, row: int) -> list[Input]:
        stem = os.path.splitext(self._name(row))[0]
        notes = [Input(os.path.join(self.path, stem + ending)) for ending in _NOTES]
        return notes[:1] if os.path.exists(notes[0].path) else notes


def is_hidden(name: str) -> bool:
    """Return whether a name is one of the system's, such as `.DS_Store` or `._a.jpg`."""
    return name.startswith(".")


@dataclass
class Skipped:
    """Counts of what was skipped in a folder and below, by kind."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str, count: int = 1) -> None:
        """Count skipped entries."""
        self.counts[kind] = self.counts.get(kind, 0) + count
        shown = self.examples.setdefault(kind, [])
        if len(shown) < _SHOWN:
            shown.append(printable(name))

    def lines(self) -> list[str]:
        """Return a line for each kind."""
        return [
            f"{count} {kind} ({', '.join(self.examples[kind])}"
            f"{', ...' if count > len(self.examples[kind]) else ''})"
            for kind, count in self.counts.items()
        ]

    def log(self, path: str) -> None:
        """Log what was skipped."""
        for line in self.lines():
            logger.info("%s: passed over %s", printable(path), line)


@dataclass
class FolderListing:
    """Direct contents of a folder.

    Attributes:
        files, folders: paths of record files and of folders, sorted.
        images: number of them. paired: how many of them have a record beside them.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    images: int = 0
    paired: int = 0


def list_folder(path: str, endings: Sequence[str], skipped: Skipped) -> FolderListing:
    """Return what of a folder can be read; endings count in capitals too.

    Raises:
        DataError: two files seem to hold the same records in two forms.
    """
    listing = FolderListing()
    images: list[str] = []
    notes: dict[str, str] = {}  # stem -> name of a `.json`
    others: list[str] = []
    shards: set[str] = set()  # paths of tars without their ending, and of folders
    for entry in sorted(os.scandir(path), key=lambda e: e.name):
        name = entry.name
        if name.lower().endswith(".tar"):
            shards.add(os.path.splitext(entry.path)[0])
        if is_hidden(name) or (entry.is_dir() and name.startswith("_")):
            skipped.add("of the system, or unfinished (`.` or `_` first)", name)
        elif entry.is_dir():
            if entry.is_symlink() and is_above(entry.path, path):
                skipped.add("links to a folder above", name)
            else:
                listing.folders.append(entry.path)
        elif is_image(name):
            images.append(name)
        elif name.lower().endswith(tuple(endings)):
            listing.files.append(entry.path)
        elif name.lower().endswith(".json"):
            notes[name[:-5]] = name
        else:
            others.append(name)
    stems = {os.path.splitext(name)[0] for name in images}
    listing.images = len(images)
    listing.paired = sum(os.path.splitext(name)[0] in notes for name in images)
    for stem, name in notes.items():
        if stem.endswith("_stats"):
            skipped.add("counts of img2dataset", name)
        elif stem not in stems:
            skipped.add("files .json beside no image of their name", name)
    for name in others:
        if os.path.splitext(name)[0] not in stems:  # beside an image: its caption as text
            ending = os.path.splitext(name)[1].lower()
            skipped.add(f"files {ending}" if ending else "files without an ending", name)
    listing.files = _without_logs(listing.files, shards | set(listing.folders), skipped)
    refuse_doubles(listing.files)
    return listing


def is_above(folder: str, inner: str) -> bool:
    """Return whether a folder, or the folder it links to, is or contains `inner`."""
    parts = [os.path.join(os.path.realpath(p), "") for p in (inner, folder)]
    return parts[0].startswith(parts[1])


def _without_logs(files: Sequence[str], shards: set[str], skipped: Skipped) -> list[str]:
    """Return files without img2dataset's `NNNNN.parquet`, its log of `NNNNN.tar` or `NNNNN/`."""
    kept = []
    for path in files:
        if path.lower().endswith(".parquet") and path[: -len(".parquet")] in shards:
            skipped.add("logs of img2dataset", os.path.basename(path))
        else:
            kept.append(path)
    return kept


def refuse_doubles(paths: Sequence[str]) -> None:
    """Raise `DataError` where two files differ only in their endings."""
    seen: dict[str, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        stem = os.path.join(folder, _stem(name))
        if stem in seen:
            raise DataError(
                f"{printable(folder)}: holds {os.path.basename(seen[stem])} and {name}, which may "
                "be the same records in two forms; name the files that are meant"
            )
        seen[stem] = path


def _stem(name: str) -> str:
    """Return a name without its ending, of two parts where it is compressed."""
    stem, ending = os.path.splitext(name)
    return os.path.splitext(stem)[0] if ending.lower() in (".gz", ".zst") else stem


def open_folder(
    path: str,
    open_one: Callable[[str], list[RecordFile]],
    endings: Sequence[str] = RECORDS,
) -> list[RecordFile]:
    """Return readers of everything in a folder that holds records, in the order of the names.

    Images with records beside them are one reader; folders and record files in it follow. What
    is passed over is logged, a line for each kind.

    Args:
        path: the folder.
        open_one: opens a record file.
        endings: of record files, in lower case.

    Raises:
        DataError: nothing to read, or a folder that can be meant in two ways.
    """
    skipped = Skipped()

    def readers(folder: str) -> list[RecordFile]:
        listing = list_folder(folder, endings, skipped)
        if listing.paired and listing.files:
            names = ", ".join(os.path.basename(file) for file in listing.files[:_SHOWN])
            raise DataError(
                f"{printable(folder)}: holds {listing.paired} images with records beside them and "
                f"record files ({printable(names)}), which may tell the same; name the files that "
                "are meant, or move one of the two elsewhere"
            )
        opened: list[RecordFile] = [FolderFile(folder)] if listing.paired else []
        folders = set(listing.folders)
        for entry in sorted((*listing.files, *listing.folders)):
            inner = readers(entry) if entry in folders else open_one(entry)
            if not inner:
                skipped.add("folders without records", os.path.basename(entry))
            opened += inner
        if listing.images and not listing.paired:
            kind = "images without a record (.json) beside any of them"
            skipped.add(kind, os.path.basename(os.path.normpath(folder)) + "/", listing.images)
        return opened

    files = readers(path)
    if not files:
        held = "; ".join(skipped.lines()) or "nothing"
        raise DataError(
            f"{printable(path)}: no records in it. It holds {held}. Records are files "
            f"{', '.join(endings)}, or images each with a .json beside it"
        )
    skipped.log(path)
    return files
