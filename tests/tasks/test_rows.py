"""Rows that pass by: their files, their counts, and nothing where one is missing or fails."""

from __future__ import annotations

import json

import pytest

from lavis.common.errors import DataError
from lavis.tasks.rows import Results, Tally

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
