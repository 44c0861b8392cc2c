"""A benchmark's files are found by their names, and each bad record is set aside by itself."""

import pytest

from lavis.common.errors import DataError, RecordError
from lavis.datasets.benchmarks.files import Record, Source, find_file, read_each, read_file


def test_the_first_name_that_exists_is_read_and_two_are_refused(tmp_path):
    source = Source("x", ("a.jsonl", "b*.csv"))
    with pytest.raises(DataError, match=r"no file named a\.jsonl or b\*\.csv"):
        find_file(str(tmp_path), source)
    (tmp_path / "b1.csv").write_text("q\n1\n")
    assert find_file(str(tmp_path), source).name == "b1.csv"
    (tmp_path / "b2.csv").write_text("q\n1\n")
    with pytest.raises(DataError, match="several files are 'b"):
        find_file(str(tmp_path), source)


def test_a_refusal_of_one_record_costs_no_other():
    def make(fields, number):
        if fields["a"] < 0:
            raise RecordError("below zero: a")
        return number, fields["a"]

    records = [Record({"a": 1}, "f", 1), Record({}, "f", 2), Record({"a": -1}, "f", 3)]
    good, missing, low = read_each(records, make)
    assert good == (1, 1)
    assert (missing.line, missing.reason) == (2, "missing field: a")
    assert (low.line, low.reason) == (3, "below zero: a")


@pytest.mark.parametrize("text", ['[{"a": 1}]', '{"data": [{"a": 1}]}', '{"a": 1}\n'])
def test_a_json_file_holds_a_list_lines_or_data(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    (record,) = read_file(tmp_path / "x.json")
    assert record.fields == {"a": 1}
