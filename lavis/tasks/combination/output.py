"""Combined scores as a filtering run has them: score files, kept corpora, rejects, report."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis.common.config.loading import load_config
from lavis.common.errors import DataError, RecordError, printable
from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.builders import build_dataset
from lavis.tasks.combination.joining import SharedRows
from lavis.tasks.combination.rules import Combination
from lavis.tasks.combination.score_rows import CriticRun, ScoredText, read_rows

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset

_NOT_SCORED = json.dumps({"reject": "not scored: by every critic"}).encode()


class CombinedRows:
    """Rows with their combined score, as a journal would give them.

    Args:
        run: whose texts and fields the rows have.
        rows, combination: of all critics.
        dataset: whose rows they are; each is compared with it, and rows without a score are
            rejects. None: rows with a score only.
        shown: places (of the R shared rows) whose payloads are kept.

    Attributes:
        payloads: place -> payload of the shown rows, after the last row.
    """

    def __init__(
        self,
        run: CriticRun,
        rows: SharedRows,
        combination: Combination,
        dataset: RecordDataset | None = None,
        shown: Collection[int] = (),
    ) -> None:
        if dataset is not None and rows.indices[-1] >= len(dataset):
            raise DataError(
                f"{run.path}: row {rows.indices[-1]} was scored, and the data set of {run.config} "
                f"has {len(dataset)} rows; its record files have changed since"
            )
        self._run, self._rows, self._scores = run, rows, combination.scores
        self._dataset = None if dataset is None else dataset.names_only()
        self._shown = frozenset(shown)
        self.payloads: dict[int, dict[str, Any]] = {}

    def iterate_raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, the payload's JSON text)."""
        expected = 0
        for place, row in self._shared():
            if self._dataset is not None:
                yield from ((index, _NOT_SCORED) for index in range(expected, row.index))
                self._check(row)
            expected = row.index + 1
            payload = self._payload(place, row)
            if place in self._shown:
                self.payloads[place] = payload
            yield row.index, json.dumps(payload).encode()
        if self._dataset is not None:
            yield from ((index, _NOT_SCORED) for index in range(expected, len(self._dataset)))

    def iterate(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number, payload)."""
        for row, raw in self.iterate_raw():
            yield row, json.loads(raw)

    def _shared(self) -> Iterator[tuple[int, ScoredText]]:
        """Yield place and row of the rows that all critics scored."""
        indices, place = self._rows.indices, 0
        for row in read_rows(self._run):
            if place < len(indices) and row.index == indices[place]:
                yield place, row
                place += 1
        if place < len(indices):
            raise DataError(f"{self._run.path}: changed while it was read; give the command again")

    def _payload(self, place: int, row: ScoredText) -> dict[str, Any]:
        """Return text and fields as the run wrote them, the label, and all scores."""
        payload: dict[str, Any] = {}
        for name, value in row.record.items():
            if name in ("prediction", "score"):
                break  # behind it stands what the critic says
            payload[name] = value
        if self._rows.labels[place] >= 0:
            payload["label"] = int(self._rows.labels[place])
        score = float(self._scores[place])
        payload |= {"prediction": int(score >= 0.5), "score": score}
        columns = self._rows.scores[:, place].tolist()
        return payload | {f"score_{n}": s for n, s in zip(self._rows.names, columns, strict=True)}

    def _check(self, row: ScoredText) -> None:
        """Raise `DataError` where the data set's row is not the one that was scored."""
        assert self._dataset is not None
        try:
            ours = self._dataset.row(row.index)
            text, instance = ours.text, ours.fields.get("instance")
        except RecordError as error:
            text, instance = error.reason, None
        same = instance is None or row.instance is None or str(instance) == row.instance
        if text != row.text or not same:
            raise DataError(
                f"{self._run.path}: row {row.index} was scored as '{printable(row.text[:60])}', "
                f"and in the data set of {self._run.config} it is '{printable(text[:60])}'; the "
                "record files have changed since"
            )


def open_data(run: CriticRun, options: Sequence[str]) -> tuple[RecordDataset, list[float]]:
    """Return the data set that a run scored, and the thresholds of the run.

    Args:
        options: `a.b=c` items that win over the run's own config.

    Raises:
        ConfigError: the config cannot be used any more.
        DataError: none of its splits has the name of the score file.
    """
    assert run.config is not None
    config = load_config(run.config, options, mode="evaluate")
    key = run.result.split("_epoch")[0]
    splits = [
        (name, node, split)
        for name, node in config.datasets.items()
        for split in node.build_info.annotations
        if key in (split, f"{name}_{split}")
    ]
    if len(splits) != 1:
        raise DataError(
            f"{run.path}: {len(splits)} splits of {run.config} are called '{key}'; name a "
            "result/<split>_epoch*.jsonl of that run"
        )
    thresholds = getattr(config.task, "keep_above", None)
    return build_dataset(*splits[0]), thresholds if thresholds is not None else []


def write_lines(rows: CombinedRows, path: Path) -> None:
    """Write the score file alone, for rows whose data set is not known."""
    with AtomicFile(path) as file:
        for _, raw in rows.iterate_raw():
            file.write(raw + b"\n")
