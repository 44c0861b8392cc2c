"""WebDataset shards: samples of a tar file, each a record and an image, read by their offset."""

from __future__ import annotations

import array
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lavis.common.errors import RecordError, printable, record_errors
from lavis.common.pixels import IMAGE_SUFFIXES
from lavis.common.storage.content import file_state
from lavis.common.storage.inputs import Input
from lavis.datasets.files.images import ImageFile
from lavis.datasets.files.records import RecordFile, parse_object
from lavis.datasets.files.tar_members import TarMember, member_at, tar_members

logger = logging.getLogger(__name__)

_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_HEADER = 512  # bytes of a header, in which the name is
_KINDS = ("json", "txt", "picture")
_ENDINGS = (".json", ".txt", *IMAGE_SUFFIXES)


class TarFile(RecordFile):
    """WebDataset shard: members `<key>.json` and `<key>.<image>`, read by offset.

    A member belongs to the sample of its key: its path up to the first dot of the last part. The
    rest, in lower case, says what it is. Without a `.json` a member `<key>.txt` is the record
    `{"txt": ...}`. Rows are the keys in the order of the shard. A key with no record, or with two
    of anything, keeps its row and is refused when it is read. Members of other kinds (`.cls`,
    `.seg.png`) and files of the system (`._a.jpg`) are passed over, which the log says.

    Raises:
        DataError: not a tar file, or one that is not whole.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        rows = array.array("q")
        self._problems: dict[int, str] = {}
        skipped: Counter[str] = Counter()
        for number, sample in enumerate(_samples(tar_members(path), skipped)):
            rows.extend(sample.places())
            if sample.problem:
                self._problems[number] = sample.problem
        # header, record offset and size, image offset and size; -1 where there is none; is text
        self._rows = np.frombuffer(rows, dtype=np.int64).reshape(-1, 6).copy()
        self._state = file_state(path)
        for kind, count in skipped.items():
            logger.info("%s: passed over %d %s", printable(path), count, kind)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, row: int) -> dict[str, Any]:
        _, offset, size, _, _, is_text = self._rows[row].tolist()
        self._check(row)
        key = self._key(row)
        if offset < 0:
            raise RecordError(
                f"missing sidecar: {key}.json in {self._name()} next to it (a sample's members "
                "follow each other; tar --sort=name packs them so)"
            )
        content = self._bytes(offset, size)
        with record_errors("malformed line"):
            record = {"txt": content.decode("utf-8")} if is_text else parse_object(content)
        record.setdefault("key", os.path.basename(key))
        return record

    def image(self, row: int) -> ImageFile | None:
        self._check(row)
        offset, size = self._rows[row, 3:5].tolist()
        if offset < 0:
            return None
        name = f"{self._name()}/{self._key(row)}"
        _, mtime, ctime = self._state
        return ImageFile(name, self.path, size, mtime, offset, ctime)

    def identity(self) -> dict[str, Any]:
        """Return name, number of rows, and a hash of where their members are."""
        places = hashlib.blake2b(self._rows.tobytes(), digest_size=16)
        places.update(repr(sorted(self._problems.items())).encode("utf-8", "backslashreplace"))
        return {"name": self._name(), "size": len(self), "places": places.hexdigest()}

    def inputs(self, row: int) -> list[Input]:
        header, record, size, image, image_size, _ = self._rows[row].tolist()
        members = ((header, _HEADER), (record, size), (image, image_size))
        return [Input(self.path, tuple(part for part in members if part[0] >= 0))]

    def _check(self, row: int) -> None:
        if row in self._problems:
            raise RecordError(f"{self._problems[row]} in {self._name()}")

    def _name(self) -> str:
        return printable(os.path.basename(self.path))

    def _key(self, row: int) -> str:
        member = member_at(self.path, int(self._rows[row, 0]))
        return _split(member.name)[0] if member else f"row {row}"

    def _bytes(self, offset: int, size: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(slots=True)
class _Sample:
    """Consecutive members of one key."""

    key: str
    archive: int
    header: int
    members: dict[str, TarMember] = field(default_factory=dict)  # by kind
    unread: str = ""  # a member whose ending is known and whose name has another dot
    problem: str = ""

    def places(self) -> tuple[int, ...]:
        """Return the row: header, offset and size of record and image, whether it is text."""
        record = self.members.get("json", self.members.get("txt"))
        image = self.members.get("picture")
        places = [(m.offset, m.size) if m is not None else (-1, -1) for m in (record, image)]
        return self.header, *places[0], *places[1], int("json" not in self.members)

    def add(self, member: TarMember, extension: str, skipped: Counter[str]) -> None:
        kind = "picture" if extension in _IMAGES else extension
        if kind not in _KINDS:
            if f".{extension}".endswith(_ENDINGS):
                self.unread = self.unread or member.name
            skipped[f"members .{extension[:20]}"] += 1
        elif member.problem:
            self.problem = self.problem or f"unusable member: {member.name} is a {member.problem}"
        elif kind not in self.members:
            self.members[kind] = member
        elif self.members[kind].name.lower() == member.name.lower():
            self.problem = self.problem or f"duplicate member: {member.name} comes twice"
        else:
            both = f"{self.members[kind].name} and {member.name}"
            self.problem = self.problem or f"duplicate member: two images, {both}"

    def finish(self) -> bool:
        """Return whether the sample is a row."""
        if not self.members and not self.problem and self.unread:
            self.problem = f"unusable member: {self.unread} is no part of a sample, whose key ends "
            self.problem += "at the first dot of the name,"
        return bool(self.members or self.problem)


def _samples(members: Iterable[TarMember], skipped: Counter[str]) -> Iterator[_Sample]:
    """Yield samples, each of consecutive members with one key."""
    current: _Sample | None = None
    for member in members:
        key, extension = _split(member.name)
        last = member.name.rpartition("/")[2]
        if last.startswith(".") or not extension:
            skipped["files of the system (names with a dot first)" if last[:1] == "." else
                    "members without an ending"] += 1  # fmt: skip
            continue
        if current is None or (key, member.archive) != (current.key, current.archive):
            if current is not None and current.finish():
                yield current
            current = _Sample(key, member.archive, member.header)
        current.add(member, extension, skipped)
    if current is not None and current.finish():
        yield current


def _split(name: str) -> tuple[str, str]:
    """Return a member's key, its path up to the first dot of the last part, and the rest."""
    folder, _, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()
