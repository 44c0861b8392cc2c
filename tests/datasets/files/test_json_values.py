"""Typed columns as JSON: every type has a form or is refused when the file is opened."""

from __future__ import annotations

import datetime
import json
import math
import pickle
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lavis.common.errors import DataError
from lavis.datasets.files.arrow import open_table
from lavis.datasets.files.json_values import finite, json_line
from lavis.datasets.files.records import ParquetFile

NAN, INF = float("nan"), float("inf")
MOMENT = datetime.datetime(2024, 5, 1, 12, 30, tzinfo=datetime.timezone.utc)
# name: (column, what the record holds; ... where it holds nothing)
COLUMNS = {
    "decimal": (pa.array([Decimal("1.50")], pa.decimal128(10, 2)), 1.5),
    "whole decimal": (pa.array([Decimal(2**80)], pa.decimal128(38, 0)), 2**80),
    "long decimal": (
        pa.array([Decimal("0.12345678901234567890")], pa.decimal128(38, 20)),
        "0.12345678901234567890",
    ),
    "decimal256": (pa.array([Decimal("2.5")], pa.decimal256(50, 1)), 2.5),
    "timestamp": (pa.array([MOMENT], pa.timestamp("us", "UTC")), "2024-05-01T12:30:00+00:00"),
    "nanoseconds": (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
    "date": (pa.array([datetime.date(2024, 5, 1)]), "2024-05-01"),
    "time": (pa.array([datetime.time(1, 2, 3)], pa.time32("s")), "01:02:03"),
    "duration": (pa.array([datetime.timedelta(seconds=90)], pa.duration("ms")), 90.0),
    "half": (pa.array(np.array([1.5], np.float16)), 1.5),
    "nan": (pa.array([NAN]), ...),
    "infinity": (pa.array([[1.0, INF]]), [1.0, None]),
    "category": (pa.array(["x"]).dictionary_encode(), "x"),
    "large": (pa.array(["x"], pa.large_string()), "x"),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    "list view": (pa.array([[1, 2]], pa.list_view(pa.int64())), [1, 2]),
    "fixed list": (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), [1, 2]),
    "map": (
        pa.array([[("3", 1), ("1", None)]], pa.map_(pa.string(), pa.int64())),
        {"3": 1, "1": None},
    ),
    "twice in a map": (
        pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())),
        [["a", 1], ["a", 2]],
    ),
    "dates in a map": (
        pa.array([[(datetime.date(2024, 5, 1), True)]], pa.map_(pa.date32(), pa.bool_())),
        {"2024-05-01": True},
    ),
    "hash": (pa.array([b"\x00\xff"], pa.binary(2)), "AP8="),
    "picture": (pa.array([b"\xff\xd8"]), ...),
    "large bytes": (pa.array([b"x"], pa.large_binary()), ...),
    "bytes as category": (pa.array([b"x"]).dictionary_encode(), ...),
    "list of bytes": (pa.array([[b"x"]]), ...),
    "image struct": (pa.array([{"bytes": b"x", "path": "a.png"}]), {"path": "a.png"}),
    "nested": (
        pa.array([[{"at": {"score": Decimal("0.25"), "thumb": b"x"}}, None]]),
        [{"at": {"score": 0.25}}, None],
    ),
    "only bytes": (pa.array([{"bytes": b"x"}]), ...),
    "nothing": (pa.nulls(1), ...),
    "empty list": (pa.array([[]], pa.list_(pa.null())), []),
    "JSON text": (pa.array(['[1, NaN, {"a": "é"}]']), [1, None, {"a": "é"}]),
}  # fmt: skip


def write(path, columns) -> str:
    try:
        pq.write_table(pa.table(columns), path)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"this pyarrow cannot write it: {error}")
    return str(path)


@pytest.mark.parametrize("name", COLUMNS)
def test_each_type_has_a_form(tmp_path, name):
    column, wanted = COLUMNS[name]
    file = ParquetFile(write(tmp_path / "a.parquet", {"x": column, "id": pa.array([7])}))
    expected = {"id": 7} if wanted is ... else {"x": wanted, "id": 7}
    record = file.read(0)
    assert record == expected
    assert json.loads(json.dumps(record, allow_nan=False)) == expected
    assert pickle.loads(pickle.dumps(file)).read(0) == expected


@pytest.mark.parametrize("name", [n for n in COLUMNS if n != "JSON text"])
def test_arrow_tables_give_the_same(tmp_path, name):
    column, wanted = COLUMNS[name]
    path = write(tmp_path / "a.parquet", {"x": column, "id": pa.array([7])})
    file = open_table(path, cache_dir=str(tmp_path / "cache"))
    expected = {"id": 7} if wanted is ... else {"x": wanted, "id": 7}
    assert file.read(0) == pickle.loads(pickle.dumps(file)).read(0) == expected


def test_bytes_are_said_once_and_not_read(tmp_path, caplog):
    columns = {name: column for name, (column, _) in COLUMNS.items() if "bytes" in name}
    columns["image struct"] = COLUMNS["image struct"][0]
    file = ParquetFile(write(tmp_path / "a.parquet", columns))
    names = "large bytes, bytes as category, list of bytes, only bytes.bytes, image struct.bytes"
    assert caplog.messages == [f"{file.path}: bytes are left out of the records: {names}"]
    assert file.read(0) == {"image struct": {"path": "a.png"}}
    assert file._groups[0].schema.names == ["image struct"]


def test_a_file_of_bytes_only_has_empty_records(tmp_path):
    file = ParquetFile(write(tmp_path / "a.parquet", {"x": pa.array([b"1", b"2"])}))
    assert len(file) == 2 and file.read(1) == {}


def twins() -> pa.StructArray:
    return pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["b", "b"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), "two columns are called 'a'"),
        (pa.table({"s": twins()}), "two fields of 's' are called 'b'; rename one"),
        (
            pa.table({"l": pa.ListArray.from_arrays([0, 1], twins())}),
            "two fields of 'l' are called 'b'",
        ),
    ],
)
def test_two_of_one_name_are_refused_when_opened(tmp_path, table, message):
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        ParquetFile(str(tmp_path / "a.parquet"))


def test_lines_are_strict_json():
    assert (
        json_line({"é": [NAN, {"a": -INF}], "b": 1.5})
        == b'{"\\u00e9": [null, {"a": null}], "b": 1.5}'
    )
    assert json_line({"é": 1}) == '{"é": 1}'.encode()
    assert json_line({"a": "\ud83d"}) == b'{"a": "\\ud83d"}'
    assert finite({"a": (NAN, 1)}) == {"a": [None, 1]} and math.isclose(finite(0.5), 0.5)
