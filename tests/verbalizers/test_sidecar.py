"""Sidecars: an odd line is refused by its number before anything is asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import ODD, spoiled, write_lines

from lavis.common.errors import DataError
from lavis.verbalizers.base import Tools
from lavis.verbalizers.config import SidecarConfig
from lavis.verbalizers.sidecar import SidecarReader

LINE = {
    "image": "a.png",
    "concepts": {"places": [{"text": "kitchen", "score": 0.5}]},
    "captions": ["a cup"],
    "narratives": [],
    "dynamic": [{"question": "what", "answer": "cup"}],
    "region_locations": [
        {"name": "0", "caption": "red cup", "attributes": ["red"]},
        None,
        {"caption": "x", "attributes": [{"text": "blue", "score": 1}]},
    ],
}


class Scene:
    image = "a.png"


def reader(path):
    return SidecarReader(SidecarConfig(path=str(path), type="sidecar"), Tools("s", 0, "cpu", None))


@settings(ODD, max_examples=150)
@given(data=st.data())
def test_a_line_is_read_or_named(tmp_path, data):
    path = write_lines(tmp_path / "s.jsonl", [LINE, data.draw(spoiled(LINE))])
    try:
        (found,) = reader(path).describe([Scene()])
    except DataError as error:
        assert str(error).startswith(f"{path}, line 2: ")
    else:
        assert isinstance(found, dict)


@pytest.mark.parametrize("line", [b"\xff{}", b"[" * 9999, b'{"a": ' + b"7" * 5000 + b"}"])
def test_bytes_that_are_no_line_are_named(tmp_path, line):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"image": "a.png"}\n\n' + line)
    with pytest.raises(DataError, match=r"s\.jsonl, line 3: not JSON"):
        reader(path)
