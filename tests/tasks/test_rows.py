"""Rows that pass by: their files, their counts, and nothing where one is missing or fails."""

from __future__ import annotations

import itertools
import json

import pyarrow.parquet as pq
import pytest

from lavis.common.errors import DataError
from lavis.common.storage.atomic import AtomicFile
from lavis.tasks.rows import JsonArray, ParquetTable, Results, Tally

ROWS = [{"score": 1}, {"reject": "broken: a.png"}, {"score": 2}]


class Reader:
    def iterate_raw(self):
        return ((row, json.dumps(payload).encode()) for row, payload in enumerate(ROWS))


def pass_rows(dataset, folder, tally):
    return Results(Reader(), dataset, folder, "val_epochbest").scored(tally, [".json", ".jsonl"])


def test_files_and_counts(list_dataset, tmp_path):
    tally = Tally()
    dataset = list_dataset([("a", "b")] * 3)
    assert list(pass_rows(dataset, tmp_path, tally)) == [(0, ROWS[0]), (2, ROWS[2])]
    result = tmp_path / "result" / "val_epochbest"
    assert json.loads(result.with_suffix(".json").read_text()) == [ROWS[0], ROWS[2]]
    assert result.with_suffix(".jsonl").read_text() == '{"score": 1}\n{"score": 2}\n'
    (reject,) = (tmp_path / "val_rejects.jsonl").read_text().splitlines()
    assert json.loads(reject) == {
        "row": 1, "file": "list.jsonl", "line": 2, "reason": "broken: a.png",
    }  # fmt: skip
    assert tally.describe() == {
        "rows": 3, "scored": 2, "rejected": 1, "rejected_by_reason": {"broken": 1},
    }  # fmt: skip


def test_no_file_where_a_row_is_missing_or_fails(list_dataset, tmp_path):
    with pytest.raises(DataError, match="1 of 4 rows were never scored"):
        list(pass_rows(list_dataset([("a", "b")] * 4), tmp_path, Tally()))
    with pytest.raises(KeyError):
        for _, payload in pass_rows(list_dataset([("a", "b")] * 3), tmp_path, Tally()):
            payload["label"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a" / "scores.json"
    with AtomicFile(path) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(KeyError), AtomicFile(path) as file:
        file.write(b"second")
        raise KeyError
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("parts", [[], [[]], [[1]], [[1, 2], [], [3]]])
def test_an_array_is_one_json_document(tmp_path, parts):
    with AtomicFile(tmp_path / "a.json") as file:
        array = JsonArray(file)
        for part in parts:
            array.write([json.dumps(n).encode() for n in part])
        array.close()
    assert json.loads((tmp_path / "a.json").read_text()) == list(itertools.chain(*parts))


def test_parquet_columns(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("lavis.tasks.rows.PARQUET_ROWS", 2)
    rows = [
        {"index": 0, "text": "a", "similarity": 1, "label": None, "boxes": [1, 2]},
        {"index": 1, "text": "\ud83d", "similarity": 0.5, "label": None},
        {"index": 2, "text": 7, "similarity": "far", "label": "x", "extra": 1},
    ]
    with AtomicFile(tmp_path / "t.parquet") as file:
        table = ParquetTable(file)
        table.write(rows[:2])
        table.write(rows[2:])
        table.close()
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == {
        "index": [0, 1, 2],
        "text": ["a", "?", "7"],
        "similarity": [1.0, 0.5, None],
        "label": [None, None, None],
        "boxes": ["[1, 2]", None, None],
    }
    assert "similarity" in caplog.text and "left out" in caplog.text


def test_numbers_that_no_column_holds_become_null(tmp_path, monkeypatch):
    monkeypatch.setattr("lavis.tasks.rows.PARQUET_ROWS", 2)
    rows = [
        {"index": 2**70, "score": 0.5, "empty": None, "nested": []},
        {"index": 1, "score": 10**400, "empty": None, "nested": {}},
        {"index": "1", "score": "far", "empty": {"a": None}, "nested": [[]]},
        {"index": 1.5, "score": 1, "empty": 3, "nested": None},
    ]
    with AtomicFile(tmp_path / "t.parquet") as file:
        table = ParquetTable(file)
        table.write(rows[:2])
        table.write(rows[2:])
        table.close()
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == {
        "index": [None, 1, None, None],
        "score": [0.5, None, None, 1.0],
        "empty": [None, None, '{"a": null}', "3"],
        "nested": ["[]", "{}", "[[]]", None],
    }


def test_an_empty_parquet_table_is_readable(tmp_path):
    with AtomicFile(tmp_path / "t.parquet") as file:
        ParquetTable(file).close()
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 0
