"""Units of work made from the data alone: an image's rows together, texts of one length together.

Planning reads every row once and keeps 16 bytes of it. The same data and unit size give the same
plan on any machine, for any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.errors import RecordError
from lavis.common.storage.atomic import AtomicFile

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset

logger = logging.getLogger(__name__)

VERSION = 2  # part of a saved plan's identity: raise it when the same data are planned differently
BUCKET = 16  # characters, about four tokens: finer saves nothing, coarser pads more
LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Plan:
    """Which rows belong to which unit, packed to `batch_size` texts.

    Attributes:
        order: `(rows,)` int64, row numbers, unit after unit.
        offsets: `(units + 1,)` int64, where each unit begins in `order`.
    """

    order: np.ndarray
    offsets: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.offsets) - 1

    def rows(self, unit: int) -> np.ndarray:
        """Return the row numbers of one unit, rows of one image side by side."""
        return self.order[self.offsets[unit] : self.offsets[unit + 1]]


def make_plan(dataset: RecordDataset, batch_size: int) -> Plan:
    """Group rows by image, order the groups by their longest text, pack them into units.

    A unit holds at most `batch_size` texts, or more if one image alone has more. Units of
    long texts come first, so that a batch too large for the memory fails at the start. Rows that
    cannot be read are planned too: their unit reports them as rejects.
    """
    images, lengths, counts = _scan(dataset)
    order = np.argsort(images, kind="stable")  # rows of one image, ascending
    ordered = images[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(ordered)]
    if not len(starts):
        return Plan(np.zeros(0, np.int64), np.zeros(1, np.int64), batch_size)
    buckets = -(-np.maximum.reduceat(lengths[order], starts) // BUCKET)
    groups = np.lexsort((order[starts], -buckets))  # by bucket, then by first row
    rows = np.diff(np.r_[starts, len(order)])[groups]  # of each group
    texts = np.add.reduceat(counts[order], starts, dtype=np.int64)[groups]
    ends = np.cumsum(rows)
    source = np.repeat(starts[groups] - (ends - rows), rows)  # a group's place before minus after
    offsets = np.r_[0, ends[_pack(np.cumsum(texts), batch_size) - 1]]
    return Plan(order[source + np.arange(len(order))], offsets, batch_size)


def load_or_make(
    path: Path, dataset: RecordDataset, batch_size: int, data: Mapping[str, Any] | None = None
) -> Plan:
    """Return the plan saved at `path` where it is of these data and this size, else make and save.

    One process should come first and the others after a barrier; several at once do the work
    several times and end with the same file.

    Args:
        data: `dataset.fingerprint()` where the caller has it.
    """
    data = dataset.fingerprint() if data is None else data
    parts = {"version": VERSION, "batch_size": batch_size, "data": data}
    identity = json.dumps(parts, sort_keys=True)
    plan = _load(path, identity, batch_size)
    if plan is None:
        plan = make_plan(dataset, batch_size)
        _save(path, identity, plan)
    return plan


def _scan(dataset: RecordDataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each row an image hash (uint64), the longest text (characters), the text count."""
    dataset = dataset.names_only()
    count = len(dataset)
    images = np.zeros(count, dtype=np.uint64)
    lengths = np.zeros(count, dtype=np.int32)
    counts = np.ones(count, dtype=np.int32)
    shown = time.monotonic()
    for index in range(count):
        try:
            row = dataset.row(index)
            key = row.image_key
            lengths[index] = max(map(len, row.all_texts))
            counts[index] = len(row.all_texts)
        except RecordError:
            key = f"\0unreadable row {index}"
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        images[index] = int.from_bytes(digest, "little")
        if time.monotonic() - shown > LOG_SECONDS:
            shown = time.monotonic()
            logger.info("planning: read %d of %d rows", index + 1, count)
    return images, lengths, counts


def _pack(ends: np.ndarray, batch_size: int) -> np.ndarray:
    """Cut groups into units of at most `batch_size` texts, or of one group with more.

    Args:
        ends: `(groups,)` cumulative text counts, rising.

    Returns:
        `(units,)` for each unit, how many groups it and those before it hold.
    """
    cuts: list[int] = []
    taken = 0
    while taken < len(ends):
        before = ends[taken - 1] if taken else 0
        taken = max(taken + 1, int(np.searchsorted(ends, before + batch_size, side="right")))
        cuts.append(taken)
    return np.array(cuts, dtype=np.int64)


def _load(path: Path, identity: str, batch_size: int) -> Plan | None:
    try:
        with np.load(path, allow_pickle=False) as data:
            if str(data["identity"]) != identity:
                logger.info("%s is a plan of other data; planning anew", path)
                return None
            return Plan(data["order"], data["offsets"], batch_size)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read (%s); planning anew", path, error)
        return None


def _save(path: Path, identity: str, plan: Plan) -> None:
    arrays: dict[str, Any] = {"order": plan.order, "offsets": plan.offsets}
    with AtomicFile(path) as file:
        np.savez(file, identity=np.array(identity), **arrays)
