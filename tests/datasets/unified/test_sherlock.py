"""Images and boxes as Sherlock publishes them."""

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.unified.sherlock import image_of, region_entries


def test_an_address_names_an_image_of_vcr_or_visual_genome():
    assert image_of("https://x.edu/rak248/VG_100K_2/7.jpg") == "VG_100K_2/7.jpg"
    assert image_of("http://x.com/vcr1images/a/b@0.jpg") == "vcr1images/a/b@0.jpg"
    with pytest.raises(RecordError, match="is neither of VCR nor of Visual Genome"):
        image_of("https://x.edu/coco/7.jpg")


def test_boxes_become_corners():
    entries = region_entries([{"left": 4, "top": 5, "width": 10, "height": 8}])
    assert entries == {"0": {"boxes": [[4, 5, 14, 13]], "obj_guess": ""}}
