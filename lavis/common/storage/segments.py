"""Segments of a journal: whose they are, and which of their units stand whole."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lavis.common.config.difference import difference
from lavis.common.errors import ConfigError

logger = logging.getLogger(__name__)

FORMAT = 2


class CommittedUnit(NamedTuple):
    """One finished unit of a segment, with the numbers of its rows.

    Attributes:
        offsets: bytes from the start of the segment to each row's line, and to the end of the last.
        inputs: offset and bytes of the line of its inputs; (0, 0) where it has none.
        again: the next start must do it again.
    """

    unit: int
    rows: list[int]
    offsets: list[int]
    inputs: tuple[int, int] = (0, 0)
    again: bool = False


class Segment(NamedTuple):
    """A segment whose header is whole and of this job."""

    path: Path
    start: int
    places: list[str]
    fingerprint: dict[str, Any]


def scan_segment(path: Path) -> Iterator[CommittedUnit]:
    """Yield the finished units of one segment in the order in which they were written.

    Lines not closed by a whole commit line with the right count and checksum are passed over.
    """
    with open(path, "rb", buffering=1 << 20) as file:
        offset = len(file.readline())  # the header, checked by `open_segments`
        rows: list[int] = []
        offsets: list[int] = []
        inputs = (0, 0)
        crc = 0
        for line in file:
            if not line.endswith(b"\n"):
                break  # torn tail
            if line.startswith(b"["):
                comma = line.find(b",")
                if line[1:comma].isdigit():
                    rows.append(int(line[1:comma]))
                    offsets.append(offset)
                crc = zlib.crc32(line, crc)
            elif line.startswith(b'{"inputs"'):
                inputs = (offset, len(line))
                crc = zlib.crc32(line, crc)
            else:
                commit = _commit(line, len(rows), crc)
                if commit is not None:
                    end = inputs[0] or offset
                    yield CommittedUnit(commit[0], rows, [*offsets, end], inputs, commit[1])
                else:
                    logger.warning("%s: passed over a damaged unit before byte %d", path, offset)
                rows, offsets, inputs, crc = [], [], (0, 0), 0
            offset += len(line)


def open_segments(
    folder: Path, fingerprint: Mapping[str, Any], *, partly: bool = False
) -> list[Segment]:
    """Return the folder's segments by start, after checking whose they are; writes nothing.

    Args:
        partly: keys of the segments' fingerprints that `fingerprint` lacks count for nothing.

    Raises:
        ConfigError: a segment carries another fingerprint; the message names what differs.
    """
    ours = json.loads(json.dumps(dict(fingerprint)))
    segments = []
    for path in sorted(folder.glob("*.jsonl")):
        with open(path, "rb") as file:
            line = file.readline()
        if not line.endswith(b"\n"):
            continue  # killed while writing its header: holds nothing
        header, problem = _header(line)
        if not problem:
            theirs = header["fingerprint"]
            if partly:
                theirs = {key: value for key, value in theirs.items() if key in ours}
            problem = difference(theirs, ours)
        if problem:
            raise ConfigError(
                f"{folder}: this journal belongs to another job ({problem}); choose another "
                f"run.output_dir or delete {folder}"
            )
        segments.append(Segment(path, header["start"], header["places"], header["fingerprint"]))
    return sorted(segments, key=lambda segment: segment.start)  # stable: then by name


def _header(line: bytes) -> tuple[dict[str, Any], str]:
    """Return a segment's header, and why it cannot be used or ''."""
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or "journal" not in header:
        return {}, "no readable header"
    if header["journal"] != FORMAT:
        return {}, (
            f"written in form {header['journal']} by another version of this code, which does not "
            f"note what form {FORMAT} compares"
        )
    kinds = {"start": int, "places": list, "fingerprint": dict}
    if not all(isinstance(header.get(key), kind) for key, kind in kinds.items()):
        return {}, "no readable header"
    return header, ""


def _commit(line: bytes, rows: int, crc: int) -> tuple[int, bool] | None:
    """Return unit and `again` where the commit line agrees with the lines before it."""
    try:
        commit = json.loads(line)
    except ValueError:
        return None
    if not isinstance(commit, dict) or commit.get("rows") != rows or commit.get("crc32") != crc:
        return None
    unit = commit.get("unit")
    return (unit, commit.get("again") is True) if isinstance(unit, int) else None
