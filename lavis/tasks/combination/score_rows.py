"""A critic's score file (`result/*.jsonl` of a filtering run), a row at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.formats import open_records

CONFIG = "config.yaml"  # of a run's folder
_ENDING = re.compile(r"\.(jsonl?|parquet)(\.gz|\.zst)?$")
SHARED = "combined"  # the name of what is made of all


@dataclass(frozen=True)
class CriticRun:
    """One critic's scores.

    Attributes:
        name: for people.
        path: the score file.
    """

    name: str
    path: Path

    @property
    def result(self) -> str:
        """The name of the result: `<split>_epoch<epoch>`."""
        return _ENDING.sub("", self.path.name)

    @property
    def config(self) -> Path | None:
        """The run file that the scores were made with, where it lies beside them."""
        path = self.path.absolute().parent.parent / CONFIG
        return path if self.path.absolute().parent.name == "result" and path.is_file() else None


@dataclass(frozen=True, slots=True)
class ScoredText:
    """A line of a score file.

    Attributes:
        index: row number in the data set.
        score: the one that thresholds are compared with, calibrated where the file has it.
        label: 1 accept, 0 reject, -1 without label.
        record: the whole line.
    """

    index: int
    instance: str | None
    text: str
    score: float
    label: int
    record: dict[str, Any]


def open_runs(arguments: Sequence[str]) -> list[CriticRun]:
    """Return the runs of `[NAME=]PATH` arguments; a path is a run's folder or a score file.

    Raises:
        DataError: fewer than two, no score file or several, a name or a file twice.
    """
    runs = [_run(argument) for argument in arguments]
    if len(runs) < 2:
        raise DataError(f"{len(runs)} score file named; name the runs of two critics or more")
    names = [run.name for run in runs]
    for number, run in enumerate(runs):
        if run.name in names[:number]:
            raise DataError(f"two critics are called '{run.name}'; write NAME={run.path}")
        if run.name == SHARED:
            raise DataError(f"{run.path}: a critic called '{SHARED}'; write NAME={run.path}")
    paths = [run.path.resolve() for run in runs]
    twice = next((run for run in runs if paths.count(run.path.resolve()) > 1), None)
    if twice is not None:
        raise DataError(f"{twice.path}: named twice; name files of different critics")
    return runs


def read_rows(run: CriticRun) -> Iterator[ScoredText]:
    """Yield the rows of a score file, which stand in the order of the data set.

    Raises:
        DataError: a line that is no row of a filtering run, a row twice, or rows in another order.
    """
    store = open_records([str(run.path)])
    last, calibrated = -1, None
    for place in range(len(store)):
        where = f"{run.path}, row {place + 1}"
        try:
            record = store.read(place)
        except RecordError as error:
            raise DataError(f"{where}: {error.reason}") from None
        row = _read(record, where)
        if row.index <= last:
            how = "comes twice" if row.index == last else f"comes after {last}"
            raise DataError(f"{where}: index {row.index} {how}; use a score file as it was written")
        if calibrated is not None and calibrated != ("calibrated_score" in record):
            raise DataError(f"{where}: some rows have a calibrated_score and others none")
        last, calibrated = row.index, "calibrated_score" in record
        yield row


def _read(record: dict[str, Any], where: str) -> ScoredText:
    index, text = record.get("index"), record.get("text")
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise DataError(f"{where}: index {index!r} is no row number")
    if "score" not in record or not isinstance(text, str):
        lacks = "text" if "score" in record else "score"
        raise DataError(f"{where}: no '{lacks}'; name result/*.jsonl of multimodal_classification")
    score = record.get("calibrated_score", record["score"])
    is_number = isinstance(score, (int, float)) and not isinstance(score, bool)
    if not is_number or not math.isfinite(score) or not 0 <= score <= 1:
        raise DataError(f"{where}: score {score!r} is no number from 0 to 1")
    label = record.get("label")
    is_label = label in (0, 1) and not isinstance(label, bool)
    instance = record.get("instance")
    return ScoredText(
        index,
        None if instance is None else str(instance),
        text,
        float(score),
        int(label) if is_label else -1,  # type: ignore[arg-type]
        record,
    )


def _run(argument: str) -> CriticRun:
    name, equals, place = argument.partition("=")
    if not equals or Path(argument).exists():
        name, place = "", argument
    path = _score_file(Path(place).expanduser())
    folder = path.absolute().parent
    own = folder.parent.name if folder.name == "result" else _ENDING.sub("", path.name)
    return CriticRun(name or own, path)


def _score_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted((path / "result").glob("*.jsonl"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{path}: one result/*.jsonl was expected, there are: {names}; name a file")
    return files[0]
