"""Selections of a corpus as JSON lines: written to a file, or streamed to a browser."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.errors import DataError, RecordError
from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.base import RecordDataset
from lavis.datasets.files.json_values import json_line
from lavis.datasets.files.records import JsonLinesFile
from lavis.ui.browse.score_files import ScoreFile


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export: the file, rows written, and rows that could not be read."""

    path: Path
    written: int
    skipped: int


def export_rows(
    dataset: RecordDataset,
    rows: np.ndarray,
    target: Path,
    *,
    scores: ScoreFile | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Exported:
    """Write rows as LCK JSON lines, one at a time; the file is whole or not there.

    A line of a JSONL file is copied byte for byte, unless a score of another file is added to it
    as `prediction`.

    Raises:
        DataError: the target is one of the corpus' own files.
    """
    if any(os.path.realpath(target) == os.path.realpath(f.path) for f in dataset.store.files):
        raise DataError(f"{target}: is part of the corpus; choose another name")
    written = 0
    with AtomicFile(target) as output:
        for row in rows:
            tick()
            line = row_line(dataset, int(row), scores)
            if line is not None:
                output.write(line + b"\n")
                written += 1
    return Exported(target, written, len(rows) - written)


def row_line(dataset: RecordDataset, index: int, scores: ScoreFile | None) -> bytes | None:
    """Return a row as one line of JSON, or None where it cannot be read."""
    file, place = dataset.store.find(index)
    if isinstance(file, JsonLinesFile) and scores is None:
        return file.read_line(place).strip()
    try:
        record: dict[str, Any] = dataset.record(index)
    except RecordError:
        return None
    if scores is not None and np.isfinite(scores.values[index]):
        record = {**record, "prediction": float(scores.values[index])}
    return json_line(record)
