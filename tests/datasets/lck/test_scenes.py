"""Regions of an image, checked, chosen and drawn."""

import pytest
from PIL import Image

from lavis.common.errors import RecordError
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.scenes import Scene, SceneRegion, ScenesConfig, marked_image, open_scene

BOXES = ([0, 0, 10, 10], [5, 5, 8, 20], [0, 0, 30, 20])


@pytest.fixture
def root(tmp_path):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "a.png")
    return tmp_path


def opened(root, **options):
    regions = [{"name": str(n), "boxes": [list(box)]} for n, box in enumerate(BOXES)]
    config = ScenesConfig(root=str(root), **options)
    return open_scene({"image": "a.png", "regions": regions}, ImageRoot(str(root)), config)


def test_thin_regions_are_left_out_by_min_edge(root):
    record, reasons = opened(root, min_edge=4)
    assert [entry["boxes"][0] for entry in record["region_locations"]] == [BOXES[0], BOXES[2]]
    assert reasons == ["bad box: region 1 is thinner than 4 pixels"]
    assert opened(root, min_edge=3)[1] == []


def test_the_largest_come_first(root):
    record, _ = opened(root, order="area", max_regions=2)
    assert [entry["boxes"][0] for entry in record["region_locations"]] == [BOXES[2], BOXES[0]]


def test_a_scene_is_drawn_and_cut(root):
    record, _ = opened(root)
    scene = Scene(record, ImageRoot(str(root)), 10_000)
    assert scene.crop(scene.regions[0], 0.5).size == (15, 15)
    drawn, marks = marked_image(ImageRoot(str(root)), "a.png", [SceneRegion(2, (1, 1, 9, 9))])
    assert drawn.size == (40, 30) and [mark.number for mark in marks] == [2]
    with pytest.raises(RecordError, match="missing image"):
        marked_image(ImageRoot(str(root)), "b.png", [])
