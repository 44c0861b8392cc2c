"""Regions as text and back: the worked picture, property tests of every convention, odd replies."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lavis.common.errors import ConfigError, RecordError
from lavis.common.regions.conventions import (
    RegionTextError,
    convention,
    convention_of,
    from_model,
    rounding_bound,
    to_model,
    write_reply,
)
from lavis.common.regions.shapes import Shape

SIZE = (1280, 853)
BOX = (100.5, 40.0, 611.0, 799.0)
CHECKPOINT_25 = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}
# model type, image processor's config, text, and the errors in x and y of the box read back
WORKED = [
    (
        "qwen2_vl",
        {},
        "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(79,47),(477,937)<|box_end|>",
        (0.62, 0.26),
    ),
    (
        "qwen2_5_vl",
        CHECKPOINT_25,
        '{"bbox_2d": [101, 39, 615, 787], "label": "dog"}',
        (0.18, 0.40),
    ),
    ("qwen2_5_vl", {}, '{"bbox_2d": [95, 38, 575, 761], "label": "dog"}', (0.50, 0.43)),
    ("qwen3_vl", {}, '{"bbox_2d": [79, 47, 477, 937], "label": "dog"}', (0.62, 0.26)),
    ("qwen3_5", {}, '{"bbox_2d": [79, 47, 477, 937], "label": "dog"}', (0.62, 0.26)),
    ("glm4v", {}, "dog [79, 47, 477, 937]", (0.62, 0.26)),
    ("glm46v", {}, "dog [79, 47, 477, 937]", (0.62, 0.26)),
    ("paligemma", {}, "<loc0048><loc0080><loc0958><loc0488> dog", (0.40, 0.20)),
    ("florence2", {}, "dog<loc_78><loc_46><loc_477><loc_936>", (0.20, 0.34)),
    (
        "kosmos-2",
        {"use_square_size": True},
        "<phrase>dog</phrase><object><patch_index_0034><patch_index_0943></object>",
        (9.0, 12.6),
    ),
    ("internvl", {}, "<ref>dog</ref><box>[[79, 47, 477, 937]]</box>", (0.62, 0.26)),
    ("molmo2", {}, '<points coords="1 1 278 492">dog</points>', (0.09, 0.18)),
    ("molmo", {}, '<point x="27.8" y="49.2" alt="dog">dog</point>', (0.09, 0.18)),
    ("gemma4", {}, '{"box_2d": [47, 79, 937, 477], "label": "dog"}', (0.62, 0.26)),
]
SPOKEN = [
    *(convention_of(family, config) for family, config, *_ in WORKED),
    *(convention(name) for name in ("unit", "per_mille", "pixels")),
    convention_of("kosmos-2", {}),
]


@pytest.mark.parametrize(("family", "config", "text", "errors"), WORKED, ids=lambda v: str(v)[:24])
def test_the_worked_picture(family, config, text, errors):
    spoken = convention_of(family, config)
    shape = Shape.of_box(BOX)
    assert to_model([shape], SIZE, spoken, ["dog"]) == [text]
    (reply,) = from_model(text, SIZE, spoken)
    assert reply.label == "dog" and not reply.clipped
    expected = BOX if reply.shape.kind == "box" else shape.centre()
    for axis in (0, 1):
        pairs = list(zip(reply.shape.value, expected, strict=True))[axis::2]
        assert max(abs(a - b) for a, b in pairs) == pytest.approx(errors[axis], abs=0.051)


def test_texts_without_labels_and_generic_forms():
    shapes = [Shape.of_box(BOX), Shape.of_point((640, 426.5))]
    assert to_model(shapes, SIZE, convention("unit")) == [
        "[0.079, 0.047, 0.477, 0.937]",
        "[0.500, 0.500]",
    ]
    assert to_model(shapes, SIZE, convention("per_mille_json")) == [
        '{"bbox_2d": [79, 47, 477, 937]}',
        '{"point_2d": [500, 500]}',
    ]
    assert to_model(shapes, SIZE, convention_of("gemma4", {}))[1] == '{"point": [500, 500]}'
    assert to_model(shapes[:1], SIZE, convention("patches")) == [
        "<object><patch_index_0034><patch_index_0943></object>"
    ]
    # nearest even number of a half, as Python and the processors round
    assert to_model([Shape.of_point((2.5, 3.5))], (1000, 1000), convention("per_mille")) == [
        "[2, 4]"
    ]


@st.composite
def sizes(draw):
    """Sizes of images with aspect ratios from 1:200 to 200:1."""
    short = draw(st.integers(1, 60))
    long = draw(st.integers(short, min(short * 200, 4000)))
    return draw(st.permutations((short, long)).map(tuple))


@st.composite
def boxes_in(draw, size):
    xs = sorted(draw(st.floats(0, size[0])) for _ in range(2))
    ys = sorted(draw(st.floats(0, size[1])) for _ in range(2))
    return xs[0], ys[0], xs[1], ys[1]


@settings(max_examples=300, deadline=None)
@given(st.data(), sizes(), st.sampled_from(SPOKEN))
def test_there_and_back_within_the_bound(data, size, spoken):
    boxes = [data.draw(boxes_in(size)) for _ in range(data.draw(st.integers(1, 3)))]
    shapes = [Shape.of_box(box) for box in boxes]
    if "point" in spoken.writes and data.draw(st.booleans()):
        shapes = [Shape.of_point(box[:2]) for box in boxes]
    left, top, right, bottom = 0.0, 0.0, *map(float, size)
    if spoken.style == "patches":
        left, top, right, bottom = spoken.frame(size).visible()
        assume(
            all(b[0] <= right and b[2] >= left and b[1] <= bottom and b[3] >= top for b in boxes)
        )
    labels = [f"thing {n}" for n in range(len(shapes))]
    bound = rounding_bound(size, spoken)
    replies = from_model(write_reply(shapes, size, spoken, labels), size, spoken)
    assert [reply.label for reply in replies] == labels and replies.dropped == 0
    for shape, reply in zip(shapes, replies, strict=True):
        expected = shape.value if reply.shape.kind == shape.kind else shape.centre()
        for place, (value, true) in enumerate(zip(reply.shape.value, expected, strict=True)):
            low, high = ((left, right), (top, bottom))[place % 2]
            shown = min(max(true, low), high)  # what of it the model sees
            assert abs(value - shown) <= bound[place % 2] + 1e-6
            assert -1e-6 <= value <= size[place % 2] + 1e-6


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda c: f"{c.name}-{c.family}")
def test_the_whole_image_and_a_pixel_survive(spoken):
    for size in ((1, 1), (7, 3), (1280, 853), (3, 600)):
        whole = Shape.of_box((0, 0, *size))
        (reply,) = from_model(to_model([whole], size, spoken)[0], size, spoken)
        assert not reply.clipped
        x1, y1, x2, y2 = reply.shape.box()
        assert 0 <= x1 <= x2 <= size[0] and 0 <= y1 <= y2 <= size[1]


CUT = {
    "per_mille_json": '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "lab',
    "per_mille_list": "[[1, 2, 3, 4], [5, 6",
    "per_mille": "a dog [1, 2, 3, 4] and a cat [5, 6, 7",
    "qwen_tags": "<|box_start|>(1,2),(3,4)<|box_end|><|object_ref_start|>b<|object_ref_end|>"
    "<|box_start|>(5,6),",
    "ref_box": "<ref>a</ref><box>[[1, 2, 3, 4], [5, 6",
    "loc4": "<loc0001><loc0002><loc0003><loc0004> a ; <loc0005><loc0006><loc00",
    "loc_bins": "a<loc_1><loc_2><loc_3><loc_4>b<loc_5><loc_6>",
    "patches": "<object><patch_index_0001><patch_index_0034></object><object><patch_index_0003>",
    "points": '<points coords="1 1 001 002">a</points> <points coords="1 1 003',
    "point_percent": '<point x="1.0" y="2.0" alt="a">a</point><points x1="3.0" y1=',
}


@pytest.mark.parametrize(("name", "text"), CUT.items())
def test_a_cut_reply_keeps_its_whole_regions_and_counts_the_lost_one(name, text):
    spoken = convention(name)
    replies = from_model(text, (1000, 1000), spoken)
    assert len(replies) == 1 and replies.dropped == 1
    whole = from_model(to_model([replies[0].shape], (1000, 1000), spoken)[0], (1000, 1000), spoken)
    assert whole.dropped == 0
    assert from_model(text + " ", (1000, 1000), spoken).dropped == 1


@pytest.mark.parametrize(
    "text", ['[{"bbox_2d": [1, 2', '{"bbox_2d": [1, 2, 3, 4], "label": "a', "<think>I see", "[1, 2"]
)
def test_a_reply_that_is_cut_before_any_region_is_an_error(text):
    with pytest.raises(RegionTextError, match=f"cut: .*{re.escape(text[:10])}"):
        from_model(text, SIZE, convention("per_mille_json"))


IMPOSSIBLE = [
    ("per_mille_json", '{"bbox_2d": [79, 47, 477, 1937]}', "impossible place"),
    ("per_mille_json", '{"bbox_2d": [0.079, 0.047, 0.477, 0.937]}', "impossible place"),
    ("per_mille_json", '{"bbox_2d": [79, 47, 477]}', "wrong count"),
    ("per_mille_json", '{"bbox_2d": [79, 47, 477, "937"]}', "no numbers"),
    ("per_mille_json", '{"bbox_2d": [79, 47, 477, NaN]}', "no numbers"),
    ("per_mille_json", '{"bbox_2d": null}', "no numbers"),
    ("per_mille_json", '{"bbox_2d": [٧٩, 47, 477, 937]}', "no JSON"),
    ("per_mille_json", '{"box_2d": [79, 47, 477, 937]}', "unknown form"),
    ("per_mille_json", '{"bbox_2d": [1, 2, 3, 4], "bbox_2d": [5, 6, 7, 8]}', "two of a key"),
    ("per_mille_json", '{"bbox_2d": [1, 2, 3, 4], "point_2d": [5, 6]}', "unknown form"),
    ("per_mille_json", '{"bbox_2d": [1, 2, 3, 4]} {"label": [}]', "no JSON"),
    ("box_2d_json", '{"bbox_2d": [79, 47, 477, 937]}', "unknown form"),
    ("per_mille", "[٧٩, 47, 477, 937]", "no number"),
    ("unit", "[79, 47, 477, 937]", "impossible place"),
    ("pixels", "[79, 47, 477, 947]", "impossible place"),  # the image is 853 high
    ("qwen_tags", "(79,47),(477,1937)", "impossible place"),
    ("qwen_tags", "(79,47,477),(1,2)", "wrong count"),
    ("qwen_tags", "(७९,47),(477,937)", "no number"),
    ("ref_box", "<ref>a</ref><box>[[79, 47, 477]]</box>", "wrong count"),
    ("ref_box", "<ref>a</ref><box>none</box>", "no numbers"),
    ("loc4", "<loc0048><loc0080><loc1024><loc0488> dog", "impossible place"),
    ("loc4", "<loc004८><loc0080><loc0958><loc0488> dog", "no number"),
    ("loc4", "<loc0048><loc0080> dog ; <loc0048><loc0080><loc0958><loc0488> dog", "wrong count"),
    ("loc_bins", "dog<loc_78><loc_46><loc_477><loc_1000>", "impossible place"),
    ("patches", "<object><patch_index_0034><patch_index_1024></object>", "impossible place"),
    ("points", '<points coords="1 1 278 1492">dog</points>', "impossible place"),
    ("points", '<points coords="2 1 278 492">dog</points>', "unknown picture"),
    ("points", '<points coords="1 278 492">dog</points>', "wrong count"),
    ("point_percent", '<point x="27.8" alt="dog">dog</point>', "wrong count"),
    ("point_percent", '<point x="27.8" y="249.2" alt="dog">dog</point>', "impossible place"),
    ("per_mille", "[1050, 10, 1060, 20]", "outside the image"),
    ("per_mille", "I cannot see any dog.", "no region"),
    ("per_mille", "", "no region"),
    ("per_mille_json", '{"bbox_2d": [' + "9" * 5000 + ", 1, 2, 3]}", "no JSON|no numbers"),
    ("per_mille_json", '{"a":' * 30000 + "1" + "}" * 30000, "no JSON"),
]


@pytest.mark.parametrize(("name", "text", "reason"), IMPOSSIBLE, ids=lambda v: str(v)[:40])
def test_what_a_convention_cannot_mean_is_an_error_with_its_text(name, text, reason):
    with pytest.raises(RegionTextError, match=reason) as caught:
        from_model(text, SIZE, convention(name))
    assert len(str(caught.value)) < 420
    words = re.findall(r"[a-z]{3,}|[0-9]{3,}", text)
    assert not words or any(word[:60] in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("per_mille_json", "```json\n[]\n```"),
        ("per_mille_list", "<|begin_of_box|>[]<|end_of_box|>"),
        ("loc4", "<eos>"),
        ("loc_bins", "</s>"),
        ("points", "There are none."),
    ],
)
def test_a_reply_may_say_that_there_is_none(name, text):
    assert from_model(text, SIZE, convention(name)) == []


def test_shapes_without_text_are_refused():
    with pytest.raises(RegionTextError, match="loc4 writes no points"):
        to_model([Shape.of_point((1, 2))], SIZE, convention("loc4"))
    with pytest.raises(RegionTextError, match="outside the image"):
        to_model([Shape.of_box((1300, 2, 1400, 3))], SIZE, convention("per_mille"))
    with pytest.raises(RegionTextError, match="outside the image"):  # Kosmos-2 cuts the sides off
        to_model([Shape.of_box((10, 2, 100, 30))], SIZE, convention_of("kosmos-2", {}))
    with pytest.raises(ConfigError, match="gemma3 has no documented text"):
        to_model([Shape.of_box(BOX)], SIZE, convention_of("gemma3", {}))
    with pytest.raises(RecordError, match="narrower than 1:200"):
        to_model([Shape.of_box((0, 0, 1, 1))], (1, 201), convention_of("qwen2_5_vl", {}))


@settings(max_examples=400, deadline=None)
@given(
    st.text(alphabet="[]{}()<>,:\"'0123456789.-_ abxy٧|/;=\\", max_size=60), st.sampled_from(SPOKEN)
)
def test_any_text_is_read_or_refused(text, spoken):
    try:
        replies = from_model(text, (64, 48), spoken)
    except RegionTextError:
        return
    for reply in replies:
        x1, y1, x2, y2 = reply.shape.box()
        assert 0 <= x1 <= x2 <= 64 and 0 <= y1 <= y2 <= 48
