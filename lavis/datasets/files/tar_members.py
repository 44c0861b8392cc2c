"""Members of a tar shard in order, and whether the shard is whole.

Headers are read one by one, so that a million need no memory, and every byte of the file is
accounted for: `tarfile` stops at the first apparent end and would silently lose what follows a
damaged header or a joined archive.
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from lavis.common.errors import REFUSALS, DataError, brief, printable

logger = logging.getLogger(__name__)

BLOCK = tarfile.BLOCKSIZE
# An end mark is two blocks of zeros, filled up to a record of 20; a longer hole is damage.
_LONGEST_END = 2 + tarfile.RECORDSIZE // BLOCK
_LONGEST_EXTENSION = 1 << 20  # bytes of a long name or of pax fields
_NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_HEADER_ERRORS: tuple[type[Exception], ...] = (tarfile.TarError, *REFUSALS)
PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member that is no folder.

    Attributes:
        name: as UTF-8 can hold it, without leading `./`.
        header, offset: first byte of its headers, and of its data.
        size: bytes of its data.
        archive: number of the archive within the file, from 0: tars may be joined.
        problem: why its data cannot be read by offset, empty for a plain file.
    """

    name: str
    header: int
    offset: int
    size: int
    archive: int = 0
    problem: str = ""


def tar_members(path: str) -> Iterator[TarMember]:
    """Yield the members of a tar file; joined tars are read as one.

    Raises:
        DataError: compressed, no tar, cut short, or damaged: the message says at which byte.
    """
    with open(path, "rb") as file:
        scanner = _Scanner(file, path)
        scanner.refuse_packed()
        while (member := scanner.next()) is not None:
            yield member


def member_at(path: str, header: int) -> TarMember | None:
    """Return the member whose headers begin at a byte."""
    with open(path, "rb") as file:
        return _Scanner(file, path, header).next()


class _Scanner:
    """Reads headers of an open tar file, from a byte on."""

    def __init__(self, file: BinaryIO, path: str, place: int = 0) -> None:
        self._file, self._path, self._place = file, printable(path), place
        self._size = os.fstat(file.fileno()).st_size
        self._archive = 0
        self._last = ""  # name of the member before, for messages

    def refuse_packed(self) -> None:
        self._file.seek(0)
        first = self._file.read(6)
        for mark, name in PACKED.items():
            if first.startswith(mark):
                raise DataError(
                    f"{self._path}: compressed ({name}); a compressed tar has no random access, "
                    "unpack it to .tar first"
                )
        if not first:
            raise DataError(f"{self._path}: empty, no tar file")

    def next(self) -> TarMember | None:
        """Return the next member that is no folder, or None at the end of the file."""
        while True:
            fields: dict[str, str] = {}
            info = self._header()
            begin = self._place - BLOCK
            while info is not None and info.type in (
                *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
                *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
            ):
                fields |= self._extension(info)
                info = self._header(between=info.type != tarfile.XGLTYPE)
            if info is None:
                return None
            member = self._member(info, begin, fields)
            if member is not None:
                return member

    def _member(
        self, info: tarfile.TarInfo, begin: int, fields: dict[str, str]
    ) -> TarMember | None:
        name = fields.get("GNU.sparse.name", fields.get("path", info.name))
        self._last = name = printable(name.removeprefix("./"))
        is_sparse = info.type == tarfile.GNUTYPE_SPARSE or any(
            key.startswith("GNU.sparse.") for key in fields
        )
        if info.type == tarfile.GNUTYPE_SPARSE:
            self._skip_sparse_map()
        size = self._number(fields["size"], begin) if "size" in fields else info.size
        if info.type in (*_NO_DATA, tarfile.DIRTYPE):
            size = 0
        offset = self._take(size, f"member {name}")
        if info.type == tarfile.DIRTYPE or (info.type in _FILES and name.endswith("/")):
            return None
        problem = ""
        if info.type == tarfile.LNKTYPE:
            problem = f"hard link to {printable(info.linkname)}"
        elif info.type == tarfile.SYMTYPE:
            problem = f"link to {printable(info.linkname)}"
        elif is_sparse:
            problem = "sparse file"
        elif info.type not in _FILES:
            problem = f"file of tar type {info.type!r}"
        return TarMember(name, begin, offset, size, self._archive, problem)

    def _header(self, *, between: bool = False) -> tarfile.TarInfo | None:
        """Return the next header, or None at the end; passes over marks between joined tars.

        Args:
            between: a long name or pax fields were read, so that their member must follow.
        """
        while True:
            at = self._place
            self._file.seek(at)
            block = self._file.read(BLOCK)
            if not block and not between:
                self._say_unmarked(at)
                return None
            if len(block) < BLOCK and (between or block.strip(b"\0")):
                self._damaged(at, "cut inside a header")
            if not block.strip(b"\0"):
                if between:
                    self._damaged(at, "zeros in place of a header")
                if self._is_end(at):
                    return None
                continue
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except _HEADER_ERRORS as error:
                if at == 0:
                    raise DataError(f"{self._path}: not a tar file, or cut short") from None
                self._damaged(at, f"a damaged header ({brief(error)})")
            if info.size < 0:
                self._damaged(at, "a damaged header (negative size)")
            self._place = at + BLOCK
            return info

    def _is_end(self, at: int) -> bool:
        """Return whether zeros at a byte end the file; else moves to the archive after them."""
        blocks = 0
        self._file.seek(at)
        block = self._file.read(BLOCK)
        while block and not block.strip(b"\0"):
            blocks += 1
            block = self._file.read(BLOCK)
        rest = at + blocks * BLOCK
        if not block:
            if blocks > _LONGEST_END:  # space kept for what was never fetched
                self._damaged(at, f"{blocks * BLOCK} zero bytes, more than an end mark has,")
            return True
        if 2 <= blocks <= _LONGEST_END and _is_header(block):
            if not self._archive:
                logger.warning(
                    "%s: several tar files joined; all of them are read (the second at byte %d)",
                    *(self._path, rest),
                )
            self._archive += 1
            self._place = rest
            return False
        if blocks < 2 or self._holds_header(rest):
            self._damaged(at, f"{blocks * BLOCK} zero bytes in place of a header")
        logger.warning(
            "%s: %d bytes behind the end of the tar are passed over; they hold no members",
            *(self._path, self._size - rest),
        )
        return True

    def _holds_header(self, place: int) -> bool:
        """Return whether anything after a byte looks like a header, at any offset."""
        self._file.seek(place)
        kept = b""
        while chunk := self._file.read(1 << 20):
            if b"ustar" in kept + chunk:
                return True
            kept = chunk[-8:]
        return False

    def _extension(self, info: tarfile.TarInfo) -> dict[str, str]:
        """Return the fields that a long name or pax header sets for the next member."""
        at = self._place
        if info.size > _LONGEST_EXTENSION:
            self._damaged(at, f"a header with {info.size} bytes of fields")
        offset = self._take(info.size, "the fields of a header")
        self._file.seek(offset)
        content = self._file.read(info.size)
        if info.type == tarfile.GNUTYPE_LONGLINK:
            return {}
        if info.type == tarfile.GNUTYPE_LONGNAME:
            return {"path": content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
        fields = {}
        while content.strip(b"\0"):  # "LENGTH KEY=VALUE\n"
            digits, _, _ = content.partition(b" ")
            length = self._number(digits.decode("ascii", "replace"), at)
            key, sign, value = content[len(digits) + 1 : length - 1].partition(b"=")
            if not sign or length > len(content) or not length:
                self._damaged(at, "damaged pax fields")
            fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
            content = content[length:]
        # Fields for all members to come: samples need nothing from them.
        return {} if info.type == tarfile.XGLTYPE else fields

    def _skip_sparse_map(self) -> None:
        """Skip the extra header blocks of old GNU sparse files."""
        goes_on, flag = self._place - BLOCK, 482
        while True:
            self._file.seek(goes_on + flag)
            if self._file.read(1) in (b"", b"\0"):
                return
            goes_on, flag = self._take(BLOCK, "a sparse member's map"), 504

    def _take(self, size: int, what: str) -> int:
        """Return the offset of data of a size, and move past it and its block padding."""
        offset = self._place
        if offset + size > self._size:
            self._damaged(self._size, f"cut inside {what}")
        self._place = min(offset + -(-size // BLOCK) * BLOCK, self._size)
        return offset

    def _number(self, digits: str, at: int) -> int:
        if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
            self._damaged(at, "damaged pax fields")
        return int(digits)

    def _say_unmarked(self, at: int) -> None:
        logger.warning(
            "%s: ends after %s without a tar's end mark; if it was cut there, samples are lost",
            *(self._path, self._last or f"byte {at}"),
        )

    def _damaged(self, at: int, what: str) -> NoReturn:
        behind = f", after {self._last}" if self._last else ""
        raise DataError(
            f"{self._path}: not whole: {what} at byte {at} of {self._size}{behind}; how many "
            "samples are lost cannot be told. Fetch or pack the shard again, or leave it out"
        )


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except _HEADER_ERRORS:
        return False
    return True
