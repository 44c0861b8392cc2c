"""Scores of a filtering run (`result/*.jsonl`) of a corpus, read once and then kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lavis.common.errors import DataError, RecordError, printable
from lavis.datasets.files.built import built_once, cache_folder, digest_of, file_identity
from lavis.datasets.files.formats import open_records
from lavis.datasets.files.records import RecordStore
from lavis.datasets.lck.dataset import LckDataset
from lavis.datasets.lck.text import instance_of
from lavis.ui.browse.index import read_number

VERSION = 1  # of the written form
_COMPARED = 64  # rows whose ids are compared with the corpus'


@dataclass(frozen=True)
class ScoreFile:
    """Scores by row: `values` is (rows,) float32, NaN where the file has no row."""

    path: str
    values: np.ndarray

    @property
    def name(self) -> str:
        """The shortest name that tells two runs apart: `RUN/test_epochbest.jsonl` -> `RUN`."""
        path = Path(self.path).absolute()
        folder = path.parent.parent if path.parent.name == "result" else path.parent
        return folder.name or path.stem


def read_scores(path: str, dataset: LckDataset, *, cache_dir: str | None = None) -> ScoreFile:
    """Return the scores of a file of results, whose `index` is the row and `score` the number.

    Raises:
        DataError: a row without `index` and `score`, a number outside the corpus, an index twice,
            or ids of another corpus.
    """
    results = open_records([path], cache_dir=cache_dir)
    if not len(results):
        raise DataError(f"{path}: no scores in it")
    _check_ids(path, results, dataset)
    rows = len(dataset)
    parts = ["scores", VERSION, rows, *[file_identity(file.path) for file in results.files]]
    target = cache_folder(cache_dir) / f"{digest_of(parts)}.npy"

    def build(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.save(file, _values(path, results, rows), allow_pickle=False)

    values = np.load(built_once(target, build), allow_pickle=False)
    return ScoreFile(path, values)


def _values(path: str, results: RecordStore, rows: int) -> np.ndarray:
    values = np.full(rows, np.nan, np.float32)
    seen = np.zeros(rows, bool)
    for place in range(len(results)):
        result = _read(path, results, place)
        index = result.get("index")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < rows:
            raise DataError(f"{path}, row {place + 1}: index {index!r} is no row of the corpus")
        if "score" not in result:
            raise DataError(f"{path}, row {place + 1}: no 'score'; is it a file of results?")
        if seen[index]:
            raise DataError(f"{path}, row {place + 1}: index {index} comes twice")
        values[index], seen[index] = read_number(result["score"]), True
    return values


def _read(path: str, results: RecordStore, place: int) -> dict[str, object]:
    try:
        return results.read(place)
    except RecordError as error:
        raise DataError(f"{path}, row {place + 1}: {error.reason}") from None


def _check_ids(path: str, results: RecordStore, dataset: LckDataset) -> None:
    """Compare some rows' ids with the corpus': an equal row count does not make it the same."""
    for place in np.unique(np.linspace(0, len(results) - 1, _COMPARED).astype(int)).tolist():
        result = _read(path, results, place)
        index, instance = result.get("index"), result.get("instance")
        if instance is None or not isinstance(index, int) or not 0 <= index < len(dataset):
            continue
        try:
            expected = instance_of(dataset.store.read(index), index)
        except RecordError:
            continue
        if str(instance) != expected:
            names = f"'{printable(str(instance)[:60])}', in the corpus '{printable(expected[:60])}'"
            raise DataError(f"{path}: scores of another corpus: row {index} is {names}")
