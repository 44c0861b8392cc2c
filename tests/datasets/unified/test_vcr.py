"""Objects of an image, from VCR's metadata."""

import json

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.unified.vcr import ImageObjects


def test_objects_are_named_by_their_places(tmp_path):
    node = {"boxes": [[0, 0, 4, 4, 0.9]], "names": ["cup"], "width": "8", "height": 6}
    (tmp_path / "m.json").write_text(json.dumps(node))
    objects = ImageObjects.read(tmp_path / "m.json")
    assert objects.size == (8, 6)
    assert objects.references([0]) == {"0": {"boxes": [[0, 0, 4, 4, 0.9]], "obj_guess": "cup"}}
    with pytest.raises(RecordError, match="unknown region id: 1 of 1"):
        objects.references([1])
    (tmp_path / "m.json").write_text(json.dumps({**node, "names": []}))
    with pytest.raises(RecordError, match="boxes and names differ in number"):
        ImageObjects.read(tmp_path / "m.json")
    with pytest.raises(RecordError, match=r"missing file: n\.json"):
        ImageObjects.read(tmp_path / "n.json")
