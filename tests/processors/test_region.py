"""Regions: golden images and texts, compositing, and that numbers are drawing order."""

import hashlib
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lavis.processors import load_processor
from lavis.processors.region import (
    DrawnRegion,
    RegionTag,
    contrast,
    css_color,
    draw_regions,
    ink_on,
    luminance,
    outline_width,
    region_colors,
    tag_tokens,
    tokens_to_text,
)

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "lskd"
CASES = json.loads((GOLDEN / "drawing" / "cases.json").read_text())
TAGS = json.loads((GOLDEN / "text" / "region_tags.json").read_text())


def rgb(path):
    return Image.open(path).convert("RGB")


def sha(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda c: c["output"])
def test_drawing_equals_the_golden_pixels(case):
    regions = []
    for region in case["regions"]:
        if case["mode"] == "boxes":
            regions.append(DrawnRegion(region["color_id"], tuple(region["coords"][:4])))
        else:
            regions.append(DrawnRegion(region["color_id"], (0, 0, 0, 0), region["coords"]))
    drawn = draw_regions(rgb(GOLDEN / "drawing" / case["input"]), regions)
    assert drawn.tobytes() == rgb(GOLDEN / "drawing" / case["output"]).tobytes()
    assert sha(drawn) == case["sha256_rgb"]


def test_the_older_palette_draws_three_people_only():
    case = CASES["person_xyz"]
    regions = [DrawnRegion(i, tuple(box)) for i, box in enumerate(case["boxes"])]
    drawn = draw_regions(rgb(GOLDEN / "drawing" / case["input"]), regions, palette="person_xyz")
    assert sha(drawn) == case["sha256_rgb"]


def test_colours_equal_the_golden_table():
    for color_id, colors in json.loads((GOLDEN / "drawing" / "colors.json").read_text()).items():
        fill, outline = region_colors(int(color_id))
        assert (list(fill), list(outline)) == (colors["fill_rgba"], colors["outline_rgba"])


@pytest.mark.parametrize(
    ("color_id", "expected"),
    [(5, (103, 102, 102)), (10, (104, 102, 102)), (50, (114, 107, 104)), (300, (130, 178, 115))],
)
def test_released_colours_over_four_are_nearly_one_grey(color_id, expected):
    fill, outline = region_colors(color_id)
    assert fill == (*expected, 32)
    assert outline == (*expected, 255)


def test_distinct_colours_can_be_told_apart():
    colors = [region_colors(i, "distinct")[1][:3] for i in range(20)]
    assert min(math.dist(a, b) for a, b in itertools.combinations(colors, 2)) > 60
    assert colors[:5] == [region_colors(i)[1][:3] for i in range(5)]


def test_distinct_colours_by_hand():
    # hue .475, lightness .3, saturation .95: between .015 and .585, blue .85 of the way
    assert region_colors(5, "distinct") == ((3, 149, 127, 32), (3, 149, 127, 255))
    # a golden turn further each, lightness .5, .62 and .3 again
    found = [region_colors(color_id, "distinct")[1][:3] for color_id in (6, 7, 8)]
    assert found == [(248, 6, 214), (170, 250, 66), (3, 43, 149)]
    # saturation goes round after 1023, hue after 1024, lightness after 1025 colours
    expected = {131: (137, 129, 105), 220: (145, 160, 108), 1300: (135, 173, 112)}
    assert {color_id: region_colors(color_id)[1][:3] for color_id in expected} == expected


def test_a_person_without_a_colour_hides_no_other():
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    box = (3, 3, 15, 12)
    regions = [DrawnRegion(3, box), DrawnRegion(0, box)]
    drawn = draw_regions(image, regions, palette="person_xyz")
    expected = draw_regions(image, regions[1:], palette="person_xyz")
    assert drawn.tobytes() == expected.tobytes() != image.tobytes()


def test_one_box_pixel_by_pixel():
    image = Image.new("RGB", (20, 20), (100, 100, 100))
    drawn = draw_regions(image, [DrawnRegion(0, (3.4, 3.6, 15.5, 12.2))])
    for x, y in itertools.product(range(20), range(20)):
        if not (3 <= x <= 15 and 3 <= y <= 12):
            expected = (100, 100, 100)
        elif x in (3, 4, 14, 15) or y in (3, 4, 11, 12):
            expected = (5, 255, 55)
        else:
            expected = (119, 88, 113)
        assert drawn.getpixel((x, y)) == expected, (x, y)
    assert image.getpixel((3, 3)) == (100, 100, 100)  # the input is left alone


def full_composite(image, region, width=2):
    """The definition: an overlay of the whole image, composited and turned back to RGB."""
    fill, outline = region_colors(region.color_id)
    overlay = Image.new("RGBA", image.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(overlay)
    if region.polygons is None:
        corners = [region.box[:2], region.box[2:]]
        pen.rectangle(corners, fill=fill, outline=outline, width=width)
    else:
        flat = [v for part in region.polygons for point in part for v in point]
        pen.polygon(flat, fill=fill, outline=outline, width=width)
    return Image.alpha_composite(image.convert("RGBA"), overlay).convert("RGB")


coordinate = st.floats(-20, 70, width=32)


@st.composite
def drawn_regions(draw):
    if draw(st.booleans()):
        xs, ys = (
            sorted((draw(coordinate), draw(coordinate))),
            sorted((draw(coordinate), draw(coordinate))),
        )
        return DrawnRegion(draw(st.integers(0, 9)), (xs[0], ys[0], xs[1], ys[1]))
    point = st.tuples(coordinate, coordinate)
    polygon = tuple(draw(st.lists(point, min_size=3, max_size=7)))
    return DrawnRegion(draw(st.integers(0, 9)), (0, 0, 0, 0), (polygon,))


@settings(max_examples=150, deadline=None)
@given(st.lists(drawn_regions(), max_size=4), st.integers(1, 5))
def test_the_touched_rectangle_is_all_that_changes(regions, width):
    image = Image.linear_gradient("L").resize((50, 37)).convert("RGB")
    expected = image
    for region in regions:
        expected = full_composite(expected, region, width)
    assert draw_regions(image, regions, width=width).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("size", "line_width", "expected"),
    [((480, 300), "auto", 2), ((100, 100), "auto", 2), ((4000, 100), "auto", 17), ((9, 9), 3, 3)],
)
def test_auto_width_survives_the_resize(size, line_width, expected):
    assert outline_width(size, line_width, 480) == expected


@pytest.mark.parametrize("case", TAGS, ids=lambda c: c["expected_text"])
def test_tags_equal_the_golden_texts(case):
    tags = {}
    for place, region in enumerate(case["regions"]):
        index = place if case["regions_carry_their_list_position"] else None
        tags[int(region["name"])] = RegionTag(index, region["obj_guess"], region["description"])
    assert tag_tokens(case["tokens"], tags, **case["options"]) == case["expected_tokens"]
    text = tokens_to_text(case["tokens"], tags, **case["options"])
    assert text == case["expected_text"]
    processor = load_processor("blip_unified_vqa")
    assert processor(text) == case["expected_after_text_processor"]


def test_hand_computed_texts():
    tokens = ["Why", "is", [4], "near", [0, 2], "?"]
    assert tokens_to_text(tokens, {4: RegionTag(0)}) == "Why is [0] near  ?"
    ordered = {i: RegionTag(k) for k, i in enumerate([2, 4, 0])}
    assert tokens_to_text(tokens, ordered) == "Why is [1] near [2] , [0] ?"
    unnumbered = {3: RegionTag(), 7: RegionTag()}
    assert tokens_to_text([[7], "hugs", [3], "and", [7]], unnumbered) == "[0] hugs [1] and [0]"


def test_objects_descriptions_and_given_texts():
    tags = {4: RegionTag(0, "person", "a woman"), 7: RegionTag(1, "dog", "a dog", text="the dog")}
    tokens = [[4], "and", [7, 4]]
    assert (
        tokens_to_text(tokens, tags, use_object_tags=True) == "person [0] and the dog , person [0]"
    )
    alone = tokens_to_text(tokens, tags, use_object_tags=True, no_ids=True)
    assert alone == "person and the dog , person"
    assert tokens_to_text(tokens, tags, use_descriptions=True) == "a woman and the dog , a woman"
    assert tokens_to_text(tokens, tags, reorder_ids=False) == "[4] and the dog , [4]"


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("shift", [0.0, 0.4, 0.5, 0.6, 0.99])
def test_the_rectangle_that_is_composited_holds_the_whole_outline(width, shift):
    image = Image.new("RGB", (30, 30), (100, 100, 100))
    corners = ((8, 8), (20, 9), (21, 21), (9, 19))
    polygon = tuple((x + shift, y + shift) for x, y in corners)
    for region in (
        DrawnRegion(0, (0, 0, 0, 0), (polygon,)),
        DrawnRegion(0, (8 + shift, 8 + shift, 20 + shift, 20 + shift)),
        DrawnRegion(0, (8 + shift, 8 + shift, 8 + shift, 8 + shift)),  # thinner than its outline
    ):
        drawn = draw_regions(image, [region], width=width)
        assert drawn.tobytes() == full_composite(image, region, width).tobytes()


ids = st.lists(st.integers(0, 12), min_size=0, max_size=5)


@given(st.lists(st.one_of(st.just("word"), ids), max_size=12), st.permutations(range(8)))
def test_the_number_in_the_text_is_the_place_in_the_drawing(tokens, order):
    tags = {region_id: RegionTag(place) for place, region_id in enumerate(order)}
    words = tag_tokens(tokens, tags)
    assert len(words) == len(tokens)
    for token, word in zip(tokens, words, strict=True):
        if isinstance(token, list):
            numbers = [int(part[1:-1]) for part in word.split(" , ")] if word else []
            assert [order[n] for n in numbers] == [i for i in token if i in tags]
        else:
            assert word == token


def test_contrast_by_hand():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)  # WCAG's known miss
    assert luminance("#05ff37") == pytest.approx(
        0.2126 * 5 / 255 / 12.92 + 0.7152 + 0.0722 * ((55 / 255 + 0.055) / 1.055) ** 2.4
    )


@pytest.mark.parametrize("palette", ["distinct", "released"])
def test_numbers_are_readable_on_every_colour_and_chips_on_every_page(palette):
    # colour numbers go round only after 1024; 0 to 31 are the ones that images have
    for color_id in [*range(64), 1023, 1024, 1025, 1026]:
        color = css_color(color_id, palette)
        ink = ink_on(color)
        assert contrast(ink, color) >= 4.5, (color_id, color, ink)
        # white and dark pages: the chip or the line of ink around it stands out
        for page in ("#ffffff", "#f5f7f9", "#000000", "#0b0f19", "#18181b", "#1d2733"):
            assert max(contrast(color, page), contrast(ink, page)) >= 3, (color_id, page)


@given(st.integers(0, 2**24 - 1))
def test_ink_is_readable_on_any_colour(value):
    color = f"#{value:06x}"
    assert contrast(ink_on(color), color) >= 4.5
