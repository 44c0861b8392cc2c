"""Score files of several critics side by side: the rows that all of them scored.

Shapes: K critics, R rows that all scored. Files are read in step, one line of each at a time;
memory holds 9 bytes of a row, and 8 for each critic.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lavis.common.errors import DataError, printable
from lavis.tasks.combination.score_rows import CriticRun, ScoredText, read_rows

_SIGNS = re.compile(r"[\W_]+")
_CUT_WORDS = 50  # the fewest words after which a text processor cuts
_SHOWN = 60  # characters of a text in a message


@dataclass(frozen=True)
class SharedRows:
    """What K critics say of the same rows.

    Attributes:
        names: of the critics.
        indices: `(R,)` int64, row numbers, ascending.
        scores: `(K, R)` float32.
        labels: `(R,)` int8, 1 accept, 0 reject, -1 without label.
        rows: scored rows by critic.
    """

    names: tuple[str, ...]
    indices: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    rows: dict[str, int]

    @property
    def left_out(self) -> dict[str, int]:
        """Rows of each critic that another one has not scored."""
        return {name: count - len(self.indices) for name, count in self.rows.items()}

    def labelled(self) -> np.ndarray:
        """Return the places of rows with a label."""
        return np.flatnonzero(self.labels >= 0)


def join(runs: Sequence[CriticRun], *, compare_texts: bool = True) -> SharedRows:
    """Read the rows that all critics scored.

    Rows are the same where number and `instance` are, and the texts but for what text processors
    change: case, punctuation, a prompt in front, an end cut off behind 50 words or more.

    Args:
        compare_texts: False takes rows of one number and `instance` for the same.

    Raises:
        DataError: a row is another one in two files, or has another label; no row is shared.
    """
    indices, labels = array("q"), array("b")
    scores = [array("f") for _ in runs]
    counts = [0] * len(runs)
    for rows in _in_step(runs, counts):
        for run, row in zip(runs[1:], rows[1:], strict=True):
            check_same(rows[0], row, (runs[0], run), compare_texts=compare_texts)
        indices.append(rows[0].index)
        labels.append(max(row.label for row in rows))
        for column, row in zip(scores, rows, strict=True):
            column.append(row.score)
    names = tuple(run.name for run in runs)
    if not indices:
        files = " and ".join(str(run.path) for run in runs)
        raise DataError(f"{files}: no row was scored by all; name runs of one data set and split")
    return SharedRows(
        names,
        np.array(indices, dtype=np.int64),
        np.array([np.frombuffer(column, dtype=np.float32) for column in scores]),
        np.array(labels, dtype=np.int8),
        dict(zip(names, counts, strict=True)),
    )


def check_same(
    one: ScoredText,
    other: ScoredText,
    runs: tuple[CriticRun, CriticRun],
    *,
    compare_texts: bool = True,
) -> None:
    """Raise `DataError`, which names the difference, where two rows of one number differ."""
    if None not in (one.instance, other.instance) and one.instance != other.instance:
        _refuse(one, runs, "instance", (str(one.instance), str(other.instance)))
    if compare_texts and not same_words(one.text, other.text):
        hint = "; where only prompts differ, add --any-text"
        _refuse(one, runs, "text", (one.text, other.text), hint)
    if -1 not in (one.label, other.label) and one.label != other.label:
        hint = "; use one label_polarity"
        _refuse(one, runs, "label", (str(one.label), str(other.label)), hint)


def same_words(one: str, other: str) -> bool:
    """Return whether two texts are one text behind different text processors.

    Example:
        >>> same_words("What is [0]? Answer: a cup.", "q: what is [0]  answer  a cup")
        True
    """
    if one == other:
        return True
    texts = [_SIGNS.sub("", text.casefold()) for text in (one, other)]
    short, long = sorted(texts, key=len)
    if not short:  # nothing but signs, such as emoji
        short, long = sorted(("".join(text.casefold().split()) for text in (one, other)), key=len)
        return long.endswith(short) if short else not long
    if long.endswith(short):
        return True
    words = min(len(text.split()) for text in (one, other))
    return words >= _CUT_WORDS and long.startswith(short)


def _refuse(
    row: ScoredText,
    runs: tuple[CriticRun, CriticRun],
    what: str,
    values: tuple[str, str],
    hint: str = "",
) -> None:
    """Name the first difference; long texts are shown from shortly before it."""
    length = min(map(len, values))
    pairs = enumerate(zip(*values, strict=False))
    start = max(0, next((at for at, (a, b) in pairs if a != b), length) - 20)
    shown = [
        printable(("..." if start else "") + value[start : start + _SHOWN]) for value in values
    ]
    raise DataError(
        f"{runs[0].path} and {runs[1].path} hold other records: row {row.index} has {what} "
        f"'{shown[0]}' in the one and '{shown[1]}' in the other{hint}"
    )


def _in_step(runs: Sequence[CriticRun], counts: list[int]) -> Iterator[list[ScoredText]]:
    """Yield the rows of one number, one of each run; count the rows of every run."""
    streams = [read_rows(run) for run in runs]
    heads = [_next(stream, counts, place) for place, stream in enumerate(streams)]
    while True:
        present = [head.index for head in heads if head is not None]
        if not present:
            return
        least = min(present)
        here = [place for place, head in enumerate(heads) if head and head.index == least]
        if len(here) == len(runs):
            yield [head for head in heads if head is not None]
        for place in here:
            heads[place] = _next(streams[place], counts, place)


def _next(stream: Iterator[ScoredText], counts: list[int], place: int) -> ScoredText | None:
    row = next(stream, None)
    counts[place] += row is not None
    return row
