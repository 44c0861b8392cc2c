"""Tables of every form give the same rows, and a CSV file's rows keep their lines."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.arrow import open_table, open_tables


def test_parquet_csv_and_arrow_give_the_same_rows(tmp_path):
    table = pa.table({"a": ["x", "y"], "b": ["1", "2"]})
    pq.write_table(table, tmp_path / "t.parquet")
    with (
        pa.OSFile(str(tmp_path / "u.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as stream,
    ):
        stream.write_table(table)
    (tmp_path / "v.csv").write_text("a,b\nx,1\ny,2\n")
    for name in ("t.parquet", "u.arrow", "v.csv"):
        rows = open_tables([str(tmp_path / name)], cache_dir=str(tmp_path / "cache"))
        assert [rows.read(row) for row in range(2)] == [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]


def test_a_bad_line_of_csv_costs_its_row(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nx,1\nonly one\n")
    file = open_table(str(tmp_path / "t.csv"), cache_dir=str(tmp_path))
    assert file.place(1)["line"] == 3 and file.columns == ["a", "b"]
    with pytest.raises(RecordError, match="malformed row: 1 cells, but 2 columns"):
        file.read(1)
    (tmp_path / "u.csv").write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="two columns have one name"):
        open_table(str(tmp_path / "u.csv"), cache_dir=str(tmp_path))
