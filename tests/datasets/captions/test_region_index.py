"""Visual Genome's regions as rows, each with the image it is of."""

import json
import zipfile

from lavis.datasets.captions.region_index import find_published, region_index

REGION = {"region_id": 7, "x": 1, "y": 2, "width": 3, "height": 4, "phrase": "a cat"}


def test_regions_of_a_packed_list_are_rows(tmp_path):
    text = json.dumps([{"id": 5, "regions": [REGION]}, {"id": 6, "regions": [REGION, "odd"]}])
    (tmp_path / "below").mkdir()
    with zipfile.ZipFile(tmp_path / "below" / "region_descriptions.json.zip", "w") as archive:
        archive.writestr("region_descriptions.json", text)
    path = find_published(str(tmp_path))
    index = region_index(path, str(tmp_path / "cache"))
    assert [index.read(row).get("image_id") for row in range(len(index))] == [5, 6, None]
    assert index.read(0) == {**REGION, "image_id": 5}
    assert find_published(str(tmp_path / "below" / "..")) is not None
