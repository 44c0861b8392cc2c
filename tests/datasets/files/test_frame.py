"""Records as a table keep their values."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from lavis.common.errors import DataError
from lavis.datasets import read_frame


def lines(path, *records) -> str:
    texts = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(texts) + "\n")
    return str(path)


def test_cells_keep_lists_ids_and_whole_numbers(tmp_path):
    first = {"question": ["is", [0, 10]], "region": [0, 10], "prediction": 0.5, "reject_label": 1}
    second = {"question": ["was", [3]], "region": [3], "prediction": 1, "index": 2**70}
    df = read_frame(lines(tmp_path / "a.jsonl", first, second))
    assert df.shape == (2, 5)
    assert df.iloc[0]["question"] == ["is", [0, 10]] and df["region"].tolist() == [[0, 10], [3]]
    assert df["prediction"].dtype == float and df[df["prediction"] > 0.8].index.tolist() == [1]
    assert type(df.iloc[0]["reject_label"]) is int and math.isnan(df.iloc[1]["reject_label"])
    assert df.iloc[1]["index"] == 2**70


def test_bad_rows_are_left_out_and_counted(tmp_path, caplog):
    path = lines(tmp_path / "a.jsonl", {"a": 1}, "{", {"a": 3})
    df = read_frame(path)
    assert df["a"].tolist() == [1, 3] and df.index.tolist() == [0, 2]
    assert "1 rows left out (row 1: malformed line" in caplog.text
    assert read_frame(path, nrows=1)["a"].tolist() == [1]
    with pytest.raises(DataError, match=r"no records .*malformed line"):
        read_frame(lines(tmp_path / "b.jsonl", "nothing"))
    with pytest.raises(DataError, match="no such record file"):
        read_frame(str(tmp_path / "c.jsonl"))


def test_parquet_and_json_lines_give_the_same_table(tmp_path):
    records = [{"question": ["is", "it"], "n": 1}, {"question": ["no"], "n": 2}]
    pd.DataFrame(records).to_parquet(tmp_path / "a.parquet")
    left = read_frame(str(tmp_path / "a.parquet"))
    right = read_frame(lines(tmp_path / "a.jsonl", *records))
    pd.testing.assert_frame_equal(left, right)
