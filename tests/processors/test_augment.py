"""RandAugment keeps sizes, and the share of a box that is in view."""

import random

import numpy as np
import pytest
from PIL import Image

from lavis.processors.augment import rand_augment, visible_share


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_augmentation_changes_no_size_and_often_the_pixels():
    image = noise(40, 30)
    outs = [rand_augment(image, random.Random(seed)) for seed in range(60)]
    assert {out.size for out in outs} == {(40, 30)}
    changed = sum(out.tobytes() != image.tobytes() for out in outs)
    # 1 - (1 - 0.5 * 7/10) ** 2 = 0.58 of the draws contain an operation that does something
    assert 20 <= changed <= 50


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 10, 10), 1.0), ((5, 5, 15, 15), 0.25), ((-10, 0, 0, 10), 0.0), ((3, 0, 3, 10), 1.0)],
)
def test_visible_share(box, expected):
    assert visible_share(box, (0, 0, 10, 10)) == expected
