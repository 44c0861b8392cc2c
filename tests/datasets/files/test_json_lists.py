"""Elements of a JSON array, in whatever pieces the file is read."""

import io

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.files import json_lists
from lavis.datasets.files.json_lists import check_json, list_elements, unique_keys


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_number_across_two_chunks_is_whole(monkeypatch, chunk):
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    elements = list_elements(io.StringIO("[0.5, -12e3, 7]"), None, "x")
    assert [(e.value, e.text) for e in elements] == [(0.5, "0.5"), (-12e3, "-12e3"), (7, "7")]


def test_a_bad_element_keeps_its_place_and_its_text():
    first, second = list_elements(io.StringIO('[{"a": 1, "a": 2}, 3]'), None, "x")
    assert (first.value, first.text) == (None, '{"a": 1, "a": 2}')
    assert first.problem == "duplicate key: 'a' comes twice in one object"
    assert second.value == 3


def test_what_cannot_be_written_again_is_refused():
    assert unique_keys([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}
    with pytest.raises(RecordError, match="nested more than 200 deep"):
        value: list = []
        for _ in range(201):
            value = [value]
        check_json(value, b"[" * 202)
    with pytest.raises(RecordError, match="malformed line"):
        check_json("\ud83d", b'"\\ud83d"')
