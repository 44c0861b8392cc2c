"""The image of an address, below the root."""

import json

import pytest
from PIL import Image

from lavis.common.errors import DataError
from lavis.datasets.captions.config import LaionCaptionsConfig
from lavis.datasets.captions.laion_220 import LaionCaptions


def opened(folder, images, **options):
    config = LaionCaptionsConfig(
        data_dir=str(folder),
        build_info={"annotations": {"train": {"storage": []}}, "images": {"storage": images}},
        **options,
    )
    return LaionCaptions(config, "train", name="laion_220")


def test_a_caption_is_long_or_short_and_its_image_lies_by_its_address(tmp_path):
    (tmp_path / "train2017").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "train2017" / "9.jpg")
    url = "http://images.cocodataset.org/train2017/9.jpg"
    row = {"url": url, "caption": "A long one.", "short_caption": "Short."}
    (tmp_path / "captions.jsonl").write_text(json.dumps(row) + "\n")
    first = opened(tmp_path, str(tmp_path)).row(0)
    assert (first.text, first.fields["instance"]) == ("A long one.", url)
    assert first.drawing.file.name == "train2017/9.jpg"
    assert opened(tmp_path, str(tmp_path), short=True).row(0).text == "Short."
    with pytest.raises(DataError, match=r"build_info\.images\.storage: missing"):
        opened(tmp_path, "")
