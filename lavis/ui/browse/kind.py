"""Describe, in a sentence, a file in which no row is a record of a corpus."""

from __future__ import annotations

import json
import logging
from collections import Counter

import numpy as np

from lavis.common.errors import DataError, RecordError, printable
from lavis.datasets.files.records import JsonLinesFile, RecordFile
from lavis.datasets.lck.dataset import LckDataset
from lavis.ui.browse.index import BAD, CorpusIndex

logger = logging.getLogger(__name__)

_LOOKED_AT = 20  # rows of a file
_NAMED = 3  # files in a message
_WANTED = "image, region, question and answer"


def check_corpus(dataset: LckDataset, index: CorpusIndex) -> None:
    """Raise `DataError` where no row is a record; else log the files that have bad rows only."""
    good = np.flatnonzero(index.columns.regions != BAD)
    first, empty = 0, []
    for file in dataset.store.files:
        last = first + len(file)
        if np.searchsorted(good, first) == np.searchsorted(good, last):
            empty.append(file)
        first = last
    if len(good):
        for file in empty[:_NAMED]:
            logger.warning("%s: %s", printable(file.path), kind_of(file))
        return
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in index.columns.reasons.most_common(3))
    names = ", ".join(printable(file.path) for file in empty[:_NAMED])
    names += f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
    raise DataError(f"{names}: no corpus: {kind_of(empty[0])} (rows: {reasons})")


def kind_of(file: RecordFile) -> str:
    """Describe the first rows of a file without records."""
    keys: Counter[str] = Counter()
    for row in range(min(len(file), _LOOKED_AT)):
        try:
            keys.update(file.read(row).keys())
        except RecordError:
            continue
    if {"index", "score"} <= keys.keys() and "question" not in keys:
        return "its rows are scores; name the corpus itself, and this file with --scores"
    if keys:
        held = ", ".join(printable(key[:30]) for key, _ in keys.most_common(6))
        return f"its rows hold {held}, where records hold {_WANTED}"
    if not isinstance(file, JsonLinesFile):
        return "its rows cannot be read"
    return _kind_of_line(file.read_line(0)[:2000])


def _kind_of_line(line: bytes) -> str:
    try:
        text = line.decode("utf-8", errors="strict" if len(line) < 2000 else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "it holds binary data, no text"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if text.lstrip().startswith("{"):
            return "no line of it is a whole JSON object; a record stands on one line"
        return f"it holds text, but no JSON; it begins with {text[:30]!r}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "it is one JSON array; name it .json, or write one record a line"
    return f"it holds JSON ({type(value).__name__}), but no objects"
