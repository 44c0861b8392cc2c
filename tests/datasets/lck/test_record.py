"""Values of records that could be read in two ways, or in none."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lavis.common.errors import RecordError
from lavis.common.regions.rle import Rle
from lavis.datasets.lck.record import check_inside, make_region, read_references, scale_region

MASK = {"size": [4, 6], "counts": "53:OJ"}  # columns 1 to 4, rows 1 to 3


def test_two_different_regions_of_one_id_are_refused():
    entries = [{"name": name, "boxes": [[0, 0, 1, 1]]} for name in ("1", 1)]
    assert list(read_references({"references": [entries[0], entries[0]]})) == [1]
    for references in (
        [entries[0], {**entries[0], "boxes": [[0, 0, 2, 2]]}],
        {"1": entries[0], "01": {"boxes": [[0, 0, 2, 2]]}},
    ):
        with pytest.raises(RecordError, match="duplicate region: references holds two of id 1"):
            read_references({"references": references})


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_mask_is_a_region_with_or_without_a_box():
    mask = Rle.of_coco(MASK).to_mask()
    for value in (MASK, {**MASK, "counts": [5, 3, 10, 2, 4]}, png(mask)):
        region = make_region(3, {"mask": value, "obj_guess": "dog"})
        assert region.box == (1, 1, 5, 4) and region.object_name == "dog"
        np.testing.assert_array_equal(region.mask.to_mask(), mask)
    region = make_region(3, {"boxes": [[0, 0, 6, 4]], "mask": MASK})
    assert region.box == (0, 0, 6, 4) and region.mask.counts == (5, 3, 10, 2, 4)


def test_masks_of_a_record_are_those_of_its_ids():
    other = {"size": [4, 6], "counts": [0, 1, 23]}
    references = read_references({"mask_rles": [MASK, None, other]})
    assert list(references) == [0, 2]
    assert references[0]["boxes"] == [[1, 1, 5, 4]] and references[2]["boxes"] == [[0, 0, 1, 1]]
    entries = [{"name": "0", "boxes": [[0, 0, 6, 4]], "mask": other}]
    entries.append({"name": "1", "obj_guess": "o"})
    references = read_references({"references": entries, "mask_rles": [MASK, MASK]})
    assert references[0] == entries[0]  # its own mask counts
    assert references[1]["obj_guess"] == "o" and references[1]["boxes"] == [[1, 1, 5, 4]]
    entries[1]["mask"] = None
    assert read_references({"references": entries, "mask_rles": [MASK, MASK]})[1]["mask"] == MASK
    with pytest.raises(RecordError, match="mask_rles is dict, expected a list"):
        read_references({"mask_rles": MASK})
    twice = [{"name": "1", "mask": MASK}, {"name": 1, "mask": other}]
    with pytest.raises(RecordError, match="duplicate region"):
        read_references({"references": twice})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"size": [4, 6], "counts": "53:O"}, "bad mask: region 3, runs cover 20 pixels of 6 x 4"),
        ({"size": [4, 6], "counts": [24]}, "bad mask: region 3 is empty"),
        ("no base64!", "bad mask: region 3, 'no base64!' is no PNG"),
        ("AAAA", "bad mask: region 3, cannot identify"),
        ([1, 2], "bad mask: region 3, .*expected size and counts"),
    ],
)
def test_a_bad_mask_rejects_its_region_only(value, reason):
    good, bad = {"name": "1", "mask": MASK}, {"name": "3", "mask": value}
    references = read_references({"references": [good, bad]})
    assert make_region(1, references[1]).box == (1, 1, 5, 4)
    with pytest.raises(RecordError, match=reason):
        make_region(3, references[3])
    with pytest.raises(RecordError, match=reason):
        make_region(3, {**references[3], "boxes": [[0, 0, 1, 1]]})


def test_masks_are_scaled_with_boxes_and_must_fit_the_image():
    region = scale_region(make_region(3, {"mask": MASK}), 2.0, 3.0)
    assert region.mask.size == (12, 12) and region.box == (2, 3, 10, 12)
    check_inside([region], (12, 12))
    with pytest.raises(RecordError, match="region 3 has one of 12 x 12 pixels, the image has 13 x"):
        check_inside([region], (13, 12))
