"""Images are found inside their root only, and opened within limits."""

import pytest
from PIL import Image

from lavis.common.errors import RecordError
from lavis.datasets.files.images import ImageRoot, decode_image, image_size


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "c:\\a.png"])
def test_names_that_leave_the_root_are_refused(tmp_path, name):
    with pytest.raises(RecordError, match="path leaves the image root"):
        ImageRoot(str(tmp_path)).find(name)


def test_an_image_is_read_up_to_its_limit(tmp_path):
    Image.new("L", (8, 6), 9).save(tmp_path / "a.png")
    file = ImageRoot(str(tmp_path)).find("a.png")
    assert image_size(file, 48) == (8, 6)
    assert decode_image(file, 48).getpixel((0, 0)) == (9, 9, 9)
    with pytest.raises(RecordError, match=r"a\.png has 8 x 6 pixels, limit 47"):
        decode_image(file, 47)
    with pytest.raises(RecordError, match=r"missing image: b\.png"):
        ImageRoot(str(tmp_path)).find("b.png")
    assert ImageRoot(str(tmp_path), must_exist=False).find("b.png").size == 0
