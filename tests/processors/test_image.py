"""Image processors: golden pixels, seeded augmentation, regions kept in view."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lavis.common.errors import ConfigError
from lavis.processors import load_processor

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "lskd"


EXPECTED = load_file(GOLDEN / "image_processor" / "expected.safetensors")


TRAIN = ["blip_image_train", "blip2_image_train"]


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_evaluation_pixels_equal_the_golden_ones(number):
    image = Image.open(GOLDEN / "drawing" / f"input_{number}.png").convert("RGB")
    for size, step in ((480, 16), (224, 8)):
        out = load_processor("blip_image_eval", {"image_size": size})(image)
        assert out.shape == (3, size, size)
        key = f"eval_{size}.image_{number}"
        assert torch.equal(out[:, ::step, ::step], EXPECTED[f"{key}.sub"])
        assert torch.equal(out[:, size // 3], EXPECTED[f"{key}.row"])
        torch.testing.assert_close(out.mean((1, 2)), EXPECTED[f"{key}.channel_mean"])
    out = load_processor("blip_image_eval", {"image_size": 28})(image)
    assert torch.equal(out, EXPECTED[f"eval_28.image_{number}.full"])


@pytest.mark.parametrize("name", TRAIN)
def test_augmentation_is_a_function_of_the_seed(name):
    processor = load_processor(name, {"image_size": 32})
    image = noise(90, 60)
    torch.manual_seed(1)
    first = processor(image, rng=random.Random("5/0/3"))
    torch.manual_seed(2)
    assert torch.equal(first, processor(image, rng=random.Random("5/0/3")))
    assert not torch.equal(first, processor(image, rng=random.Random("5/1/3")))
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.float32


def test_a_crop_covers_between_half_and_all_of_the_image():
    processor = load_processor("blip2_image_train", {"image_size": 8})
    rng = random.Random(0)
    windows = [processor._sample_window((200, 160), (), rng) for _ in range(200)]
    areas = [(x2 - x1) * (y2 - y1) / (200 * 160) for x1, y1, x2, y2 in windows]
    assert 0.48 < min(areas) < 0.56
    assert max(areas) <= 1
    ratios = [(x2 - x1) / (y2 - y1) for x1, y1, x2, y2 in windows]
    assert min(ratios) > 0.74
    assert max(ratios) < 1.35


def marked(box):
    """A grey image with one pure red box, so that what is in view can be counted."""
    image = Image.new("RGB", (300, 200), (90, 90, 90))
    image.paste((255, 0, 0), tuple(int(v) for v in box))
    return image


def red_share(processor, tensor):
    """Return the area of red pixels as a share of the image."""
    mean = torch.tensor(processor.mean)[:, None, None]
    pixels = tensor * torch.tensor(processor.std)[:, None, None] + mean
    return ((pixels[0] > 0.6) & (pixels[1] < 0.3)).float().mean().item()


@pytest.mark.parametrize("name", TRAIN)
def test_regions_stay_in_view_when_they_must(name):
    box = (2.0, 2.0, 42.0, 32.0)  # a corner, 2 % of the image: most crops would lose it
    kept = load_processor(
        name, {"image_size": 96, "keep_regions": True, "hflip": False, "min_visible": 0.9}
    )
    lost = load_processor(name, {"image_size": 96})
    image = marked(box)
    whole = 40 * 30 / (300 * 200)
    shares = [red_share(kept, kept(image, rng=random.Random(i), boxes=[box])) for i in range(60)]
    assert min(shares) > 0.75 * whole  # a crop enlarges what it keeps, augmentation blurs edges
    without = [red_share(lost, lost(image, rng=random.Random(i))) for i in range(60)]
    assert min(without) == 0


def test_a_flip_mirrors_the_image_and_its_boxes():
    processor = load_processor("blip2_image_train", {"image_size": 300, "min_scale": 1.0})
    image = marked((0, 0, 60, 40)).resize((300, 300))
    seen = set()
    for seed in range(20):
        out, boxes = processor.crop_and_flip(image, [(0, 0, 60, 60)], random.Random(seed))
        x1, _, x2, _ = boxes[0]
        seen.add(round(x1))
        centre = int(min(max((x1 + x2) / 2, 1), 298))
        assert out.getpixel((centre, 20))[0] > 200, seed
    assert len(seen) > 1


def test_flips_can_be_switched_off():
    processor = load_processor("blip2_image_train", {"image_size": 300, "hflip": False})
    image = marked((0, 0, 60, 40))
    for seed in range(30):
        _, boxes = processor.crop_and_flip(image, [(0, 0, 60, 40)], random.Random(seed))
        assert boxes[0][0] <= 0  # the left border stays at or beyond the left border


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blip_image_eval", {"image_sise": 224}, "did you mean 'image_size'"),
        ("blip_image_eval", {"image_size": 0}, "image_size is 0; use a whole number"),
        ("blip_image_train", {"min_scale": 2}, "min_scale is 2; use a number from 0.01 to 1.0"),
        ("blip2_image_train", {"hflip": "no"}, "hflip is 'no'; use true or false"),
        ("blip_image_eval", {"mean": [0.5]}, "three numbers each"),
    ],
)
def test_bad_options_name_the_fix(name, options, message):
    with pytest.raises(ConfigError, match=message):
        load_processor(name, options)


def test_sides_are_swapped_only_where_images_are_mirrored():
    with pytest.raises(ConfigError, match="swap_sides: goes with hflip: true"):
        load_processor("blip_image_train", {"hflip": False, "swap_sides": True})
    assert "swap_sides" not in load_processor("blip_image_train").describe()
    assert load_processor("blip_image_train", {"swap_sides": True}).describe()["swap_sides"]
