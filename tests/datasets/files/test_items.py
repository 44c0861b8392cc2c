"""Published files are read item by item, in every form and whatever the size of a chunk."""

import gzip
import io
import json

import pytest

from lavis.common.errors import DataError
from lavis.datasets.files import json_lists
from lavis.datasets.files.items import read_items


def elements(file, key=None):
    return [element.value for element in json_lists.list_elements(file, key, "x")]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_arrays_are_streamed(monkeypatch, chunk):
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    values = [{"a": [1, 2]}, "te, ]xt", 12345, None, [], -1.5e3]
    text = json.dumps(values, indent=1)
    assert elements(io.StringIO(text)) == values
    whole = json.dumps({"info": {"images": [9]}, "n": 17, "images": values, "more": 1})
    assert elements(io.StringIO(whole), "images") == values
    assert elements(io.StringIO(" [ ] ")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a"', "x: not the JSON that was expected"),
        ("[1", "cut off"),
        ("[1 2]", "expected ',' or ']'"),
        ('{"a": 1}', "has no list 'images'"),
        ("7", r"expected '\['"),
    ],
)
def test_broken_files_are_named(text, message):
    with pytest.raises(DataError, match=message):
        elements(io.StringIO(text), "images")


def test_lines_arrays_and_compressed_files_give_the_same_items(tmp_path):
    values = [{"a": 1}, {"a": 2}]
    lines = "".join(json.dumps(value) + "\n" for value in values)
    (tmp_path / "a.jsonl").write_text(lines + "\n")
    (tmp_path / "b.json").write_text(lines)
    (tmp_path / "c.json").write_text("\ufeff" + json.dumps(values), encoding="utf-8")
    with gzip.open(tmp_path / "d.json.gz", "wt") as file:
        file.write(json.dumps(values))
    for name in ("a.jsonl", "b.json", "c.json", "d.json.gz"):
        assert [item.value for item in read_items(tmp_path / name)] == values


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [1, 2], "more"', "cut off"),
        ('{"images": [1, 2]', "cut off"),
        ('{"images": [1, 2]} {"images": [3]}', "something follows the end"),
        ("[1, 2] [3]", "something follows the end"),
    ],
)
def test_a_file_is_read_to_its_end(monkeypatch, chunk, text, message):
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    with pytest.raises(DataError, match=message):
        elements(io.StringIO(text), "images")
