"""Locate and read a benchmark's files: CSV, JSON, JSON lines, Parquet, or the Hugging Face hub.

Benchmarks have at most some ten thousand questions, so all records of a file are held in memory.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lavis.common.errors import REFUSALS, DataError, RecordError, printable, record_errors
from lavis.datasets.benchmarks.question import Kind, Question, ReadOptions
from lavis.datasets.files.hub import fetch_table
from lavis.datasets.files.items import begins_with, read_items
from lavis.datasets.files.json_values import RowConverter

Made = TypeVar("Made")
# file names of tables exported from the Hugging Face hub
HUB = ("validation*.parquet", "validation*.jsonl", "validation*.json", "validation*.csv")


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it is from; `fields` is None for one that cannot be read."""

    fields: dict[str, Any] | None
    file: str
    line: int
    reason: str = ""

    def refused(self, reason: str) -> Record:
        """Return a rejected record at this place, with the reason."""
        return Record(None, self.file, self.line, reason)


@dataclass(frozen=True)
class Source:
    """One file of a benchmark.

    Attributes:
        group: results are listed under it.
        patterns: names under `data_dir`, also in folders below; the first that exists is read.
        hub: Hugging Face data set id, config, split; None where it is in no hub.
    """

    group: str
    patterns: tuple[str, ...]
    hub: tuple[str, str | None, str] | None = None


Reader = Callable[[Sequence[Record], Source, ReadOptions], Iterator[Question | Record]]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        sources: its files, in the order in which their questions come.
        read: records of one source -> questions and rejected records.
    """

    sources: tuple[Source, ...]
    read: Reader
    kind: Kind


def read_each(
    records: Iterable[Record], make: Callable[[dict[str, Any], int], Made]
) -> Iterator[Made | Record]:
    """Yield the result of `make` for each record's fields and number, from 1, or its reject."""
    for number, record in enumerate(records, 1):
        try:
            if record.fields is None:
                raise RecordError(record.reason)
            with record_errors():
                made = make(record.fields, number)
        except RecordError as error:
            yield record.refused(error.reason)
        else:
            yield made


def find_file(root: str, source: Source) -> Path:
    """Return the file of a source; raises `DataError` where no name matches, or several do."""
    folder = Path(root).expanduser()
    if folder.is_file():
        return folder
    for pattern in source.patterns:
        matches = sorted(folder.glob(pattern)) or sorted(folder.rglob(pattern))
        if len(matches) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in matches[:3])
            raise DataError(
                f"{folder}: several files are '{pattern}' ({names}); point data_dir at one folder, "
                "or name the file in build_info.annotations.test.storage"
            )
        if matches:
            return matches[0]
    raise DataError(f"{folder}: no file named {' or '.join(source.patterns)}")


def read_file(path: str | Path) -> list[Record]:
    """Return the records of a file by the ending of its name.

    A JSON file holds one list, lines, or `{"data": [...]}`. Labels in `<name>-labels.lst` beside
    JSON lines (PIQA, SIQA) become the field `label`.

    Raises:
        DataError: a file that cannot be read at all.
    """
    path = Path(path)
    ending = path.suffix.lower()
    try:
        if ending == ".csv":
            records = _read_csv(path)
        elif ending in (".parquet", ".pq"):
            records = _read_parquet(path)
        elif ending in (".jsonl", ".json"):
            records = _read_json(path)
        elif ending == ".txt":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            records = [Record({"line": t}, str(path), n + 1) for n, t in enumerate(lines) if t]
        else:
            raise DataError(f"{path}: unknown ending; use .csv, .json, .jsonl, .parquet or .txt")
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not records:
        raise DataError(f"{path}: no records")
    return _with_labels(path, records)


def read_hub(source: Source) -> list[Record]:
    """Return the records of a source from the hub; raises as `fetch_table`."""
    assert source.hub is not None, "checked by BenchmarkConfig.check_source"
    name, config, split = source.hub
    advice = "set datasets.benchmark.data_dir to a folder of its files"
    table = fetch_table(name, config, split, advice=advice)
    return [Record(dict(row), name, number + 1) for number, row in enumerate(table)]


def _read_csv(path: Path) -> list[Record]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        records = []
        for row in reader:
            extra, short = row.pop(None, None), None in row.values()  # type: ignore[call-overload]
            place = (str(path), reader.line_num)
            if any(printable(cell) != cell for cell in row.values() if cell):
                records.append(Record(None, *place, "malformed line: text that is not UTF-8"))
            elif extra or short:
                count = "more" if extra else "fewer"
                records.append(Record(None, *place, f"malformed line: {count} cells than columns"))
            else:
                records.append(Record({k: v.strip() for k, v in row.items()}, *place))
        return records


def _read_parquet(path: Path) -> list[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    converter = RowConverter(table.schema, str(path))
    empty = dict.fromkeys(converter.columns)
    records = []
    for number in range(table.num_rows):
        try:
            with record_errors("malformed row"):
                row = converter.record(table.slice(number, 1).to_pylist()[0])
            records.append(Record({**empty, **row}, str(path), number + 1))
        except RecordError as error:
            records.append(Record(None, str(path), number + 1, error.reason))
    return records


def _read_json(path: Path) -> list[Record]:
    records = []
    for number, item in enumerate(read_items(path, _key_of(path)), 1):
        value, reason = item.value, item.error
        if reason is None and not isinstance(value, dict):
            reason = f"malformed record: an object was expected, not {type(value).__name__}"
        line = item.place.get("line", number)
        records.append(Record(None if reason else value, str(path), line, reason or ""))
    return records


def _key_of(path: Path) -> str | None:
    """Return `data` for a file that is one object with a list of that name."""
    if path.suffix.lower() != ".json" or not begins_with(path, b"{"):
        return None
    try:
        # only inspected; numbers may be too long for `int`
        whole = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), parse_int=len)
    except REFUSALS:
        return None  # lines under the name .json
    return "data" if isinstance(whole, dict) and isinstance(whole.get("data"), list) else None


def _with_labels(path: Path, records: list[Record]) -> list[Record]:
    """Add the labels that PIQA and SIQA publish beside their lines."""
    beside = path.with_name(f"{path.stem}-labels.lst")
    if not beside.is_file():
        return records
    labels = beside.read_text(encoding="utf-8-sig", errors="replace").split()
    if len(labels) != len(records):
        raise DataError(f"{beside}: {len(labels)} labels for {len(records)} records in {path.name}")
    return [
        record
        if record.fields is None
        else replace(record, fields={"label": label, **record.fields})
        for record, label in zip(records, labels, strict=True)
    ]
