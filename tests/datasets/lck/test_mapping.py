"""Boxes by image, from a file of their own."""

import json
import pickle

from lavis.datasets.files.records import JsonLinesFile
from lavis.datasets.lck.mapping import RegionMapping


def test_an_image_has_its_last_line_and_a_copy_finds_the_same(tmp_path):
    lines = [
        {"image": "a.jpg", "region_locations": [{"boxes": [[0, 0, 1, 1]]}]},
        {"image": "a.jpg", "region_locations": {"4": {"boxes": [[0, 0, 2, 2]]}}},
        {"image": "b.jpg", "7": {"boxes": [[0, 0, 3, 3]]}},
        {"no": "image"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    mapping = RegionMapping(JsonLinesFile(str(tmp_path / "m.jsonl")))
    assert mapping.regions("a.jpg") == {4: {"boxes": [[0, 0, 2, 2]]}}
    again = pickle.loads(pickle.dumps(mapping))
    assert again.regions("b.jpg") == {7: {"boxes": [[0, 0, 3, 3]]}}
    assert again.regions("c.jpg") == {}
