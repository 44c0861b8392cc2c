"""Odd records of a benchmark are set aside one by one; the others are asked."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_files import FILES, write_benchmark
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import ODD, as_json, spoiled, write_lines

from lavis.common.errors import DataError, RecordError
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.benchmarks.files import read_file
from lavis.datasets.config import BuildInfo, SplitSource

# every benchmark whose files are JSON
NAMES = [
    name
    for name, files in FILES.items()
    if all(not isinstance(content, str) or file.endswith(".lst") for file, content in files.items())
]


def opened(name, folder, **options):
    build_info = BuildInfo(annotations={"test": SplitSource(storage=[])})
    config = BenchmarkConfig(benchmark=name, data_dir=str(folder), build_info=build_info, **options)
    return BenchmarkDataset(config, "test")


@pytest.mark.parametrize("name", NAMES)
@settings(ODD, max_examples=25)
@given(data=st.data())
def test_a_question_is_asked_or_set_aside(tmp_path, name, data):
    write_benchmark(name, tmp_path)
    for file, content in FILES[name].items():
        if isinstance(content, list):
            write_lines(tmp_path / file, [data.draw(spoiled(record)) for record in content])
        elif isinstance(content, dict):
            (tmp_path / file).write_text(as_json(data.draw(spoiled(content))))
    protocol = data.draw(st.sampled_from(["released", "corrected"]))
    try:
        dataset = opened(name, tmp_path, protocol=protocol)
    except DataError as error:
        assert not isinstance(error, RecordError)
        return
    for index in range(len(dataset)):
        try:
            row = dataset.row(index)
            json.dumps([row.fields, dataset.record(index)], default=str).encode("ascii")
            assert all(isinstance(text, str) for text in row.all_texts)
        except RecordError as error:
            error.reason.encode("utf-8")
    json.dumps(dataset.fingerprint())


def test_bytes_that_are_not_utf8_cost_their_row(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"question,answer\ncaf\xe9?,yes\nbig?,no\n")
    bad, good = read_file(tmp_path / "a.csv")
    assert (bad.fields, bad.reason) == (None, "malformed line: text that is not UTF-8")
    assert good.fields == {"question": "big?", "answer": "no"}
    offsets = pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]))
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfeabc")])
    pq.write_table(pa.table({"question": column}), tmp_path / "a.parquet")
    bad, good = read_file(tmp_path / "a.parquet")
    assert bad.fields is None and bad.reason.startswith("malformed row: 'utf-8'")
    assert good.fields == {"question": "abc"}


def test_a_long_number_or_half_a_character_costs_its_item(tmp_path):
    items = ['{"a": 1}', '{"a": ' + "7" * 5000 + "}", '{"a": "\\ud83d"}', "[]", '{"a": 2}']
    for name, text in (("a.json", "[%s]"), ("b.json", '{"data": [%s]}')):
        (tmp_path / name).write_text(text % ",\n".join(items))
        found = read_file(tmp_path / name)
        assert [record.fields for record in found] == [{"a": 1}, None, None, None, {"a": 2}]
