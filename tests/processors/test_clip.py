"""CLIP's image processor equals transformers' and the values of the published settings."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.processors import load_processor


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (224, 224), (7, 301), (640, 427), (225, 224)])
def test_values_equal_those_of_transformers(size):
    width, height = size
    generator = np.random.default_rng(width)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    # The published settings are its defaults; in transformers 5.0 it had the plain name.
    reference = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)()
    expected = reference(image, return_tensors="pt")["pixel_values"][0]
    found = load_processor("clip_image")(image)
    assert found.shape == (3, 224, 224) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_grey_images_and_other_sizes():
    grey = Image.new("L", (50, 20), 255)
    processor = load_processor("clip_image", {"image_size": 8, "mean": [0, 0, 0], "std": [1, 1, 1]})
    assert torch.equal(processor(grey), torch.ones(3, 8, 8))
    assert processor.deterministic
    assert json.dumps(processor.describe())


def test_the_middle_is_kept_and_nothing_is_squashed():
    image = Image.new("RGB", (40, 10), "black")
    image.paste("white", (15, 0, 25, 10))  # the middle quarter
    processor = load_processor("clip_image", {"image_size": 10, "mean": [0] * 3, "std": [1] * 3})
    assert torch.equal(processor(image), torch.ones(3, 10, 10))


def test_a_wrong_size_is_named():
    with pytest.raises(ConfigError, match=r"clip_image\.image_size is 0"):
        load_processor("clip_image", {"image_size": 0})
