"""What a vision-language model is shown of an image."""

import json

import numpy as np
import pytest
from PIL import Image

from lavis.common.errors import ConfigError, RecordError
from lavis.common.regions.conventions import convention_of, from_model
from lavis.common.regions.rle import Rle
from lavis.processors import load_processor
from lavis.processors.region import DrawnRegion, draw_regions
from lavis.processors.views import crop_window, cut_out, mark_regions
from lavis.processors.vlm import color_name, pixels

REGIONS = (DrawnRegion(0, (2, 2, 20, 12)), DrawnRegion(1, (5, 5, 30, 18)))


@pytest.fixture
def image():
    return Image.linear_gradient("L").resize((33, 20)).convert("RGB")


def shown(image, regions=REGIONS, **options):
    call = {key: options.pop(key) for key in ("palette", "width") if key in options}
    return load_processor("vlm_image", options)(image, regions=regions, **call)


def same(view, image):
    return (view == pixels(image)).all()


def test_the_image_keeps_its_size_and_is_drawn_as_the_critic_sees_it(image):
    drawn = shown(image, width=2)
    assert drawn.regions == ("the box outlined in green", "the box outlined in light blue")
    assert drawn.views[0].shape == (3, 20, 33)
    expected = np.array(draw_regions(image, REGIONS, width=2))
    assert (drawn.views[0].permute(1, 2, 0).numpy() == expected).all()
    plain = shown(image, shows="plain")
    assert same(plain.views[0], image) and plain.regions == ("region 0", "region 1")


def test_marks_crops_and_masks(image):
    marks = shown(image, shows="marks", palette="distinct")
    assert marks.regions == ("the region marked 0", "the region marked 1")
    assert same(marks.views[0], mark_regions(image, REGIONS))
    large = image.resize((330, 200))
    crops = shown(large, shows="crops")
    drawn = draw_regions(large, REGIONS)
    assert len(crops.views) == 3 and same(crops.views[0], drawn)
    assert same(crops.views[2], drawn.crop(crop_window(REGIONS[1].box, large.size)))
    assert crops.regions[1] == "the box outlined in light blue, shown larger in image 3"
    mask = shown(image, shows="mask")
    assert same(mask.views[0], image)
    assert len(mask.views) == 3 and mask.regions[0] == "what image 2 shows alone"
    assert same(mask.views[1], cut_out(image, REGIONS[0]))


def test_coordinates_are_of_the_family_and_its_image_processor(image):
    options = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}
    big = image.resize((1280, 853))
    region = DrawnRegion(0, (100.5, 40, 611, 799))
    found = shown(
        big, [region], shows="coordinates", convention="qwen2_5_vl", image_processor=options
    )
    assert found.regions == ('{"bbox_2d": [101, 39, 615, 787]}',)
    assert same(found.views[0], big)
    assert shown(big, [region], shows="coordinates", convention="unit").regions == (
        "[0.079, 0.047, 0.477, 0.937]",
    )


def test_a_smaller_view_is_the_frame_of_its_coordinates(image):
    """Resizing here makes a second frame: text and pixels must both be of the smaller image."""
    big = image.resize((1280, 853))
    region = DrawnRegion(0, (100.5, 40, 611, 799))
    found = shown(big, [region], shows="coordinates", convention="qwen2_5_vl", max_pixels=640 * 427)
    height, width = found.views[0].shape[1:]
    assert width * height <= 640 * 427 and (width, height) == (640, 426)
    (reply,) = from_model(found.regions[0], (width, height), convention_of("qwen2_5_vl", {}))
    back = [v * s for v, s in zip(reply.shape.value, (1280 / width, 853 / height) * 2, strict=True)]
    assert back == pytest.approx(region.box, abs=1.2)
    drawn = shown(big, [region], max_pixels=640 * 427, width=2)
    smaller = region.resized((1280, 853), (640, 426))
    assert smaller.box == pytest.approx((50.25, 19.98, 305.5, 399.04), abs=0.01)
    expected = draw_regions(big.resize((640, 426), Image.Resampling.BICUBIC), [smaller])
    assert same(drawn.views[0], expected)


def test_polygons_and_masks_are_resized_with_the_image(image):
    mask = np.zeros((20, 33), bool)
    mask[4:14, 2:15] = True
    region = DrawnRegion(0, (2, 4, 15, 14), mask=Rle.of_mask(mask))
    small = region.resized((33, 20), (66, 40))
    assert small.mask.size == (66, 40) and small.shape.box() == (4, 8, 30, 28) == small.box
    polygons = DrawnRegion(0, (2, 4, 6, 8), (((2, 4), (6, 4), (6, 8)),))
    assert polygons.resized((33, 20), (66, 40)).polygons == (((4, 8), (12, 8), (12, 16)),)
    assert DrawnRegion(0, (2, 4, 6, 8), ((),)).shape.kind == "box"
    words = shown(image, [region, polygons]).regions
    assert words[0] == "the area outlined in green around 26% of the width and 45% of the height"


def test_colours_have_names_and_places_where_two_share_one(image):
    regions = [DrawnRegion(n, (2 * n, 2, 2 * n + 10, 12)) for n in range(12)]
    for palette in ("released", "distinct"):
        words = shown(image, regions, palette=palette).regions
        assert len(set(words)) == 12
        assert words[0] == "the box outlined in green" or palette == "distinct"
    # beyond the table the released colours are one grey: the place tells them apart
    assert shown(image, regions, palette="released").regions[5] == (
        "the box outlined in grey around 45% of the width and 35% of the height"
    )
    persons = shown(image, regions[:4], palette="person_xyz").regions
    assert persons[3] == "region 3" and persons[0] == "the box outlined in green"
    assert len(shown(image, regions[:4], shows="marks", palette="person_xyz").views) == 1
    names = {(255, 0, 0): "red", (250, 250, 250): "white", (10, 10, 10): "black"}
    names |= {(60, 60, 70): "dark grey", (245, 173, 66): "orange", (3, 43, 149): "dark blue"}
    names |= {(255, 0, 40): "red", (248, 6, 214): "pink", (204, 153, 255): "light purple"}
    assert {color: color_name(color) for color in names} == names


def test_equal_descriptions_show_alike():
    def described(**options):
        return json.dumps(load_processor("vlm_image", options).describe())

    assert described() == described(shows="drawn") != described(shows="marks")
    one = described(shows="coordinates", convention="qwen2_5_vl")
    other = described(
        shows="coordinates",
        convention="qwen2_5_vl",
        image_processor={"size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    )
    assert one != other and '"longest_edge": 1003520' in one
    assert described(max_pixels=1000) != described(max_pixels=1001)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shows": "all"}, "shows is 'all'; use one of drawn, marks, crops"),
        ({"shows": "coordinates"}, "convention: missing; write a model's type"),
        ({"shows": "coordinates", "convention": "units"}, "unknown convention 'units'; did you"),
        ({"shows": "coordinates", "convention": "gemma3"}, "gemma3 has no text for regions"),
        ({"shows": "drawn", "convention": "unit"}, "is of shows: coordinates, not of drawn"),
        (
            {"shows": "coordinates", "convention": "unit", "image_processor": {}},
            "goes with a model's type",
        ),
        ({"max_pixels": 0}, "max_pixels is 0; use a whole number"),
    ],
)
def test_odd_options_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        load_processor("vlm_image", options)


def test_a_region_without_a_text_is_a_reject(image):
    regions = [DrawnRegion(0, (40, 2, 50, 12))]
    with pytest.raises(RecordError, match="outside the image"):
        shown(image, regions, shows="coordinates", convention="per_mille")
