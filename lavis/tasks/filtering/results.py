"""Scored rows to score files and filtered corpora, in one pass over the rows in data-set order.

Memory holds a chunk of rows and about 20 bytes for every row (`RowTable`).
"""

from __future__ import annotations

import gc
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lavis.common.storage.atomic import AtomicFile
from lavis.datasets.files.json_values import json_line
from lavis.datasets.lck.tokens import has_empty_rationale
from lavis.tasks.metrics import Calibrator
from lavis.tasks.rows import JsonArray, ParquetTable, Results

CHUNK = 256  # rows
_decode = json.JSONDecoder().raw_decode  # half the time of json.loads on short lines
_encode = json.JSONEncoder(check_circular=False, allow_nan=False).encode


class Groups:
    """One property of every row as a number, such as its source; -1 where a row has none."""

    def __init__(self, count: int) -> None:
        self.codes = np.full(count, -1, dtype=np.int32)
        self._numbers: dict[Any, int] = {}

    def set(self, rows: Sequence[int], values: Sequence[Any]) -> None:
        """Set the values of some rows; None and empty text count as none."""
        numbers = self._numbers
        self.codes[rows] = [
            -1 if value is None or value == "" else numbers.setdefault(value, len(numbers))
            for value in values
        ]

    def items(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield (value, its row numbers) by value, numbers before texts."""
        order = np.argsort(self.codes, kind="stable")
        codes = self.codes[order]
        for value in sorted(self._numbers, key=lambda v: (isinstance(v, str), v)):
            code = self._numbers[value]
            first, last = np.searchsorted(codes, [code, code + 1])
            yield value, order[first:last]


class RowTable:
    """What the summary needs of every row; arrays are indexed by row number.

    Attributes:
        scores: float32 P(accept) of the model, NaN if the row is rejected.
        final: compared with thresholds: calibrated scores, or `scores` itself.
        predictions: int8, the larger of the two logits.
        labels: int8, 1 accept, 0 reject, -1 without label.
        groups: `source`, `regions` (number of regions in the record) and `kind` of every row.
        reasons: rejected rows, by reason up to its first colon.
        kept: rows kept, by threshold.
        empty_rationales: scored rows with an empty rationale.
        unsure: rows whose bounds lie on both sides of a threshold, by threshold; None where no row
            has bounds.
    """

    def __init__(self, count: int) -> None:
        self.scores = np.full(count, np.nan, dtype=np.float32)
        self.final = self.scores
        self.predictions = np.zeros(count, dtype=np.int8)
        self.labels = np.full(count, -1, dtype=np.int8)
        self.groups = {name: Groups(count) for name in ("source", "regions", "kind")}
        self.reasons: Counter[str] = Counter()
        self.kept: dict[float, int] = {}
        self.empty_rationales = 0
        self.unsure: Counter[float] | None = None

    def scored(self) -> np.ndarray:
        """Return the numbers of the rows that have a score."""
        return np.flatnonzero(~np.isnan(self.scores))

    def labelled(self) -> np.ndarray:
        """Return the numbers of the rows that have a score and a label."""
        return np.flatnonzero(~np.isnan(self.scores) & (self.labels >= 0))


def write_rows(
    results: Results, thresholds: Sequence[float], calibrator: Calibrator | None = None
) -> RowTable:
    """Write the score file and, if `results.full`, all other files with a line per row.

    Files: `result/<name>.json` (spec: text, the data set's fields, prediction, score) and
    `.jsonl`; where full also `.parquet`, `kept/<name>_filtered_threshold_<t>.jsonl` (the
    records as they were read, `prediction` set to the score) and `rejects.jsonl`.

    Raises:
        DataError: a row of the data set is missing.
    """
    table = RowTable(len(results.dataset))
    if calibrator is not None:
        table.final = table.scores.copy()
    count = 0
    with ExitStack() as stack:
        stack.enter_context(_collector_paused())
        scores = _ScoreFiles(stack, results)
        corpora = _Corpora(stack, results, thresholds) if results.full else None
        table.kept = dict.fromkeys(thresholds, 0) if results.full else {}
        stored = results.reader.iterate_raw()
        while chunk := list(itertools.islice(stored, CHUNK)):
            count += len(chunk)
            rows, raws, payloads = _split(chunk, table, corpora)
            if rows:
                table.final[rows] = _add(rows, payloads, table, calibrator)
                if calibrator is not None:
                    raws, payloads = _with_calibrated(raws, payloads, table.final[rows])
                raws, payloads = _with_marks(raws, payloads, table, thresholds, calibrator)
                scores.write(raws, payloads)
                if corpora is not None:
                    corpora.write(rows, table)
        results.check_complete(count)
        scores.close()
    return table


class _ScoreFiles:
    """The per-row files, written from the rows' JSON text as the journal holds it."""

    def __init__(self, stack: ExitStack, results: Results) -> None:
        def opened(ending: str) -> Any:
            return stack.enter_context(AtomicFile(results.score_path(ending)))

        self._array = JsonArray(opened(".json"))
        self._lines = opened(".jsonl")
        self._table = ParquetTable(opened(".parquet")) if results.full else None

    def write(self, raws: Sequence[bytes], payloads: Sequence[Mapping[str, Any]]) -> None:
        self._array.write(raws)
        self._lines.write(b"\n".join(raws) + b"\n")
        if self._table is not None:
            self._table.write(payloads)

    def close(self) -> None:
        self._array.close()
        if self._table is not None:
            self._table.close()


class _Corpora:
    """Kept records per threshold, and the rejects."""

    def __init__(self, stack: ExitStack, results: Results, thresholds: Sequence[float]) -> None:
        def opened(path: Path) -> Any:
            return stack.enter_context(AtomicFile(path))

        self._results = results
        self._kept = {t: opened(kept_path(results.folder, results.name, t)) for t in thresholds}
        self._rejects = opened(results.path("rejects.jsonl"))

    def reject(self, row: int, payload: Mapping[str, Any]) -> None:
        self._rejects.write(self._results.reject_line(row, payload))

    def write(self, rows: Sequence[int], table: RowTable) -> None:
        records = [self._results.dataset.record(row) for row in rows]
        groups = table.groups
        groups["source"].set(rows, [_text(record.get("source")) for record in records])
        groups["regions"].set(rows, [_length(record.get("region")) for record in records])
        groups["kind"].set(rows, [_text(record.get("kind")) for record in records])
        table.empty_rationales += sum(map(has_empty_rationale, records))
        scores = table.final[rows].astype(np.float64)  # thresholds are float64 too
        lowest = min(self._kept, default=2.0)
        lines = [
            _line({**record, "prediction": score}) if score >= lowest else b""
            for record, score in zip(records, scores.tolist(), strict=True)
        ]
        for threshold, file in self._kept.items():
            kept = np.flatnonzero(scores >= threshold)
            file.write(b"".join([lines[place] for place in kept.tolist()]))
            table.kept[threshold] += len(kept)


def kept_path(folder: Path, name: str, threshold: float) -> Path:
    """Return the file of the records kept at a threshold."""
    return folder / "kept" / f"{name}_filtered_threshold_{threshold}.jsonl"


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return _encode(record).encode() + b"\n"
    except ValueError:  # NaN or infinity, which JSON has no numbers for
        return json_line(record, ascii_only=True) + b"\n"


def _split(
    chunk: Sequence[tuple[int, bytes]], table: RowTable, corpora: _Corpora | None
) -> tuple[list[int], list[bytes], list[dict[str, Any]]]:
    """Separate rejects; return numbers, JSON text and content of the scored rows."""
    rows, raws, payloads = [], [], []
    for row, raw in chunk:
        payload, _ = _decode(raw.decode("ascii"))
        if "reject" in payload:
            table.reasons[payload["reject"].split(":")[0]] += 1
            if corpora is not None:
                corpora.reject(row, payload)
        else:
            rows.append(row)
            raws.append(raw)
            payloads.append(payload)
    return rows, raws, payloads


def _add(
    rows: list[int],
    payloads: Sequence[Mapping[str, Any]],
    table: RowTable,
    calibrator: Calibrator | None,
) -> np.ndarray:
    """Fill the table for some rows and return the scores to compare with thresholds."""
    scores = np.array([payload["score"] for payload in payloads])
    table.scores[rows] = scores
    table.predictions[rows] = [payload["prediction"] for payload in payloads]
    labels = [payload.get("label") for payload in payloads]
    table.labels[rows] = [label if label in (0, 1) else -1 for label in labels]
    return scores if calibrator is None else calibrator(scores)


def _with_calibrated(
    raws: Sequence[bytes], payloads: Sequence[dict[str, Any]], values: np.ndarray
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Put `calibrated_score` at the end of every row."""
    texts, changed = [], []
    for raw, payload, number in zip(raws, payloads, values.tolist(), strict=True):
        texts.append(raw[:-1] + b', "calibrated_score": ' + repr(number).encode() + b"}")
        changed.append({**payload, "calibrated_score": number})
    return texts, changed


def _with_marks(
    raws: list[bytes],
    payloads: list[dict[str, Any]],
    table: RowTable,
    thresholds: Sequence[float],
    calibrator: Calibrator | None,
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Put `unsure_at` at the end of rows with bounds: the thresholds between the two.

    Such a row is kept or not by its score, and would not be by another one within its bounds.
    """
    bounds = [(row.get("p_yes_low"), row.get("p_yes_high")) for row in payloads]
    known = [place for place, pair in enumerate(bounds) if None not in pair]
    if not known:
        return raws, payloads
    values = np.array([bounds[place] for place in known], dtype=np.float64)  # (rows, 2)
    if calibrator is not None:
        values = np.stack([calibrator(values[:, side]) for side in (0, 1)], axis=1)
    table.unsure = table.unsure if table.unsure is not None else Counter()
    texts, changed = list(raws), list(payloads)
    for place, (low, high) in zip(known, values.tolist(), strict=True):
        crossed = [threshold for threshold in thresholds if low < threshold <= high]
        table.unsure.update(crossed)
        mark = json.dumps(crossed).encode()
        texts[place] = raws[place][:-1] + b', "unsure_at": ' + mark + b"}"
        changed[place] = {**payloads[place], "unsure_at": crossed}
    return texts, changed


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the search for reference cycles: JSON has none, and it took a quarter of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None
