"""Files that hold a line for every row, and how many rows were scored or set aside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lavis.common.errors import DataError
from lavis.common.storage import AtomicFile
from lavis.tasks.sinks import JsonArray

if TYPE_CHECKING:
    from lavis.datasets.base import RecordDataset
    from lavis.tasks.base import RowReader


@dataclass
class Tally:
    """What became of a data set's rows.

    Attributes:
        counts: `rows`, `scored`, `rejected`.
        reasons: of rejects, up to the first colon.
    """

    counts: Counter[str] = field(default_factory=lambda: Counter(rows=0, scored=0, rejected=0))
    reasons: Counter[str] = field(default_factory=Counter)

    def describe(self) -> dict[str, Any]:
        """Return the counts and `rejected_by_reason`, for the summary."""
        return {**self.counts, "rejected_by_reason": dict(sorted(self.reasons.items()))}


def scored_rows(
    reader: RowReader,
    dataset: RecordDataset,
    output_dir: Path,
    name: str,
    *,
    endings: Collection[str],
    tally: Tally,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Write rows as they pass, count them, and yield number and content of those with a score.

    The files, there once the last row has passed: `result/<name>` and `rejects.jsonl`.

    Args:
        endings: forms of the result: `.json`, an array, and `.jsonl`.

    Raises:
        DataError: a row of the data set is missing.
    """
    with ExitStack() as stack:

        def opened(path: str) -> BinaryIO:
            return stack.enter_context(AtomicFile(output_dir / path))

        array = JsonArray(opened(f"result/{name}.json")) if ".json" in endings else None
        lines = opened(f"result/{name}.jsonl") if ".jsonl" in endings else None
        rejects = opened(f"{split_prefix(name)}rejects.jsonl")
        for row, raw in reader.iterate_raw():
            payload = json.loads(raw)
            tally.counts["rows"] += 1
            if "reject" in payload:
                tally.counts["rejected"] += 1
                tally.reasons[payload["reject"].split(":")[0]] += 1
                rejects.write(reject_line(row, payload, dataset))
                continue
            tally.counts["scored"] += 1
            if array is not None:
                array.write([raw])
            if lines is not None:
                lines.write(raw + b"\n")
            yield row, payload
        check_complete(name, tally.counts["rows"], dataset)
        if array is not None:
            array.close()


def reject_line(row: int, payload: Mapping[str, Any], dataset: RecordDataset) -> bytes:
    """Return a line of `rejects.jsonl`; files without lines (Parquet, tar) give the row there."""
    place = payload if "file" in payload else dataset.source(row)
    line = {"row": row, "file": place.get("file"), "line": place.get("line", place.get("row"))}
    return json.dumps({**line, "reason": payload["reject"]}).encode() + b"\n"


def check_complete(name: str, found: int, dataset: RecordDataset) -> None:
    """Raise `DataError` unless every row of the data set was found."""
    if found != len(dataset):
        raise DataError(
            f"{name}: {len(dataset) - found} of {len(dataset)} rows were never scored; run "
            f"the same command again with the same run.output_dir to score them"
        )


def split_prefix(name: str) -> str:
    """Return what precedes the fixed file names: nothing for the split `test`, else `<split>_`."""
    split = name.split("_epoch")[0]
    return "" if split == "test" else f"{split}_"
