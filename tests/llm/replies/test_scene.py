"""A scene is read from a record, or the record refused; odd replies of a server are no reply."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_values import LONG, spoiled

from lavis.common.errors import RecordError
from lavis.llm.replies.scene import SceneLimits, read_scene

RECORD = {
    "image": "a.png",
    "width": 100,
    "height": 80,
    "captions": ["a man with a dog"],
    "narratives": ["A man walks."],
    "concepts": {"places": [{"text": "park", "score": 0.3}], "objects": ["dog"]},
    "dynamic": [{"question": "Who?", "answer": "A man"}],
    "region_locations": {
        "0": {"boxes": [[1, 2, 30, 60]], "obj_guess": "man", "attributes": ["tall"]},
        "2": {"boxes": [[40, 40, 70, 70]], "obj_guess": "dog", "caption": "a brown dog"},
    },
}


def test_phrases_keep_marks_with_their_letters():
    names = ["ผู้ชายใส่เสื้อ", "एक हँसता कुत्ता", "a cafe\u0301's sign", "a caf\u00e9's sign", "สุนัข " * 9]
    entries = [
        {"boxes": [[0, 0, 9, 9]], "obj_guess": "a hu\u0301man", "caption": name} for name in names
    ]
    scene = read_scene({"image": "a.png", "region_locations": entries}, SceneLimits())
    assert [region.handle for region in scene.regions] == [
        "the ผู้ชายใส่เสื้อ", "the एक हँसता कुत्ता", "the cafe\u0301's sign",
        "the second caf\u00e9's sign", "the a hu\u0301man",
    ]  # fmt: skip
    assert not any(region.is_person for region in scene.regions)  # "man" is half of a word


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_scene_is_read_or_refused(data):
    limits = SceneLimits(people_first=data.draw(st.booleans()))
    try:
        scene = read_scene(data.draw(spoiled(RECORD)), limits)
    except RecordError as error:
        assert error.reason
    else:
        assert len({region.handle for region in scene.regions}) == len(scene.regions)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"region_locations": [{"boxes": [[1, 2, 10**400, 4]]}]}, "bad box: region 0"),
        ({"region_locations": [{"boxes": [[1, 2, float("inf"), 4]]}]}, "bad box: region 0"),
        ({"region_locations": {"5" * 5000: {"boxes": [[1, 2, 3, 4]]}}}, "wrong type: region id"),
        ({"region_locations": LONG}, "wrong type: region_locations is str"),
    ],
)
def test_odd_regions_are_refused(change, reason):
    with pytest.raises(RecordError, match=reason):
        read_scene({**RECORD, **change}, SceneLimits())


@pytest.mark.parametrize("width", [10**400, float("inf"), float("nan"), "100", None, -1, True])
def test_a_size_that_is_no_number_leaves_positions_out(width):
    scene = read_scene({**RECORD, "width": width}, SceneLimits())
    assert [region.position for region in scene.regions] == ["", ""]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("max_captions", "captions"),
        ("max_narratives", "narratives"),
        ("max_concepts", "places"),
        ("max_dialogue", "dialogue"),
        ("max_regions", "regions"),
    ],
)
def test_a_prompt_shows_so_much_of_a_record(name, field):
    turn = {"question": "Why?", "answer": "So."}
    record = RECORD | {
        "captions": ["a", "b"], "narratives": ["a", "b"], "dynamic": [turn, turn],
        "concepts": {"places": ["park", "lawn"]},
    }  # fmt: skip
    counts = [len(getattr(read_scene(record, SceneLimits(**{name: n})), field)) for n in (0, 1, 2)]
    assert counts == [0, 1, 2]
