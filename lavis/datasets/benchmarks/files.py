"""Finding and reading a benchmark's files: CSV, JSON, JSON lines, Parquet, or the Hugging Face hub.

Benchmarks have at most some ten thousand questions, so that all records of a file are held.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.errors import REFUSALS, DataError, RecordError, printable, record_errors
from lavis.common.storage.content import content_digest
from lavis.datasets.files.hub import fetch_table
from lavis.datasets.files.json_lists import Element, list_elements
from lavis.datasets.files.json_values import RowConverter
from lavis.datasets.files.records import parse_object


@dataclass(frozen=True, slots=True)
class Record:
    """One record and where it is from; `fields` is None for one that cannot be read."""

    fields: dict[str, Any] | None
    file: str
    line: int
    reason: str = ""


@dataclass(frozen=True)
class Source:
    """One file of a benchmark.

    Attributes:
        group: what its questions are listed under.
        patterns: names under `data_dir`, also in folders below; the first that exists is read.
        hub: Hugging Face data set id, config, split; None where it is in no hub.
    """

    group: str
    patterns: tuple[str, ...]
    hub: tuple[str, str | None, str] | None = None


def find_file(root: str, source: Source) -> Path:
    """Return the file of a source.

    Raises:
        DataError: no name matches, or several do.
    """
    folder = Path(root).expanduser()
    if folder.is_file():
        return folder
    for pattern in source.patterns:
        found = sorted(folder.glob(pattern)) or sorted(folder.rglob(pattern))
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in found[:3])
            raise DataError(
                f"{folder}: several files are '{pattern}' ({names}); point data_dir at one folder, "
                "or name the file in build_info.annotations.test.storage"
            )
        if found:
            return found[0]
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
    """Return the records of a source from the hub, through the `datasets` package.

    Raises:
        ConfigError: the package is missing.
        DataError: it cannot be fetched.
    """
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
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if path.suffix.lower() == ".json":
        if content.lstrip()[:1] == b"[":
            with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8") as file:
                return list(_checked(list_elements(file, None, str(path)), path))
        try:
            whole = json.loads(content, parse_int=len)  # only looked at; numbers may be too long
        except REFUSALS:
            whole = None  # lines under the name .json
        if isinstance(whole, dict) and isinstance(whole.get("data"), list):
            with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8") as file:
                return list(_checked(list_elements(file, "data", str(path)), path))
    records = []
    for number, line in enumerate(content.split(b"\n")):
        if not line.strip():
            continue
        try:
            records.append(Record(parse_object(line), str(path), number + 1))
        except RecordError as error:
            records.append(Record(None, str(path), number + 1, error.reason))
    return records


def _checked(elements: Iterable[Element], path: Path) -> Iterator[Record]:
    for number, element in enumerate(elements):
        if isinstance(element.value, dict):
            yield Record(element.value, str(path), number + 1)
        else:
            kind = type(element.value).__name__
            reason = f"malformed record: an object was expected, not {kind}"
            yield Record(None, str(path), number + 1, element.problem or reason)


def _with_labels(path: Path, records: list[Record]) -> list[Record]:
    """Add the labels that PIQA and SIQA publish beside their lines."""
    beside = path.with_name(f"{path.stem}-labels.lst")
    if not beside.is_file():
        return records
    labels = beside.read_text(encoding="utf-8-sig", errors="replace").split()
    if len(labels) != len(records):
        raise DataError(f"{beside}: {len(labels)} labels for {len(records)} records in {path.name}")
    joined = []
    for record, label in zip(records, labels, strict=True):
        fields = record.fields
        if fields is not None:
            fields = {"label": label, **fields}
        joined.append(Record(fields, record.file, record.line, record.reason))
    return joined


def identity(path: str | Path) -> dict[str, Any]:
    """Return name and content of a file."""
    return {"name": os.path.basename(path), "content": content_digest(path)}
