"""Regions in JSON and bare lists, as models write them."""

import time

import pytest

from lavis.common.regions.conventions import RegionTextError, convention, from_model
from lavis.common.regions.lists import join_json, read_lists

SIZE = (1280, 853)


def test_a_fenced_list_and_what_stands_around_it():
    text = (
        "<think>two [1, 2, 3, 4]</think>Here they are:\n```json\n[\n"
        '\t{"bbox_2d": [79, 47, 477, 937], "label": "a \\"big\\" dog [0] {x}"},\n'
        '\t{"point_2d": [500, 500], "label": "नाक"}\n]\n```\nThere are two.'
    )
    replies = from_model(text, SIZE, convention("per_mille_json"))
    assert [reply.label for reply in replies] == ['a "big" dog [0] {x}', "नाक"]
    assert [reply.shape.kind for reply in replies] == ["box", "point"]
    assert replies[1].shape.value == (640.0, 426.5)


@pytest.mark.parametrize(
    "text",
    [
        "{'bbox_2d': [79, 47, 477, 937], 'label': \"the dog's nose\"}",
        '[{"bbox_2d": [79, 47, 477, 937], "label": "the dog\'s nose",},]',
        '{"objects": [{"label": "the dog\'s nose", "bbox_2d": [79.0, 47, 477, 937.2]}]}',
        '{"bbox_2d": [[79, 47, 477, 937]], "label": "the dog\'s nose"}',
        '```json\n{"bbox_2d": [79, 47, 477, 937], "label": "the dog\'s nose"}',
    ],
)
def test_json_as_models_write_it(text):
    (reply,) = from_model(text, SIZE, convention("per_mille_json"))
    assert reply.label == "the dog's nose"
    assert reply.shape.value[:3] == pytest.approx((101.12, 40.091, 610.56))


def test_a_list_that_ends_with_a_comma_has_lost_one():
    text = '[{"bbox_2d": [1, 2, 3, 4], "label": "a"},'
    assert from_model(text, SIZE, convention("per_mille_json")).dropped == 1


def test_lists_in_prose_and_regions_of_texts_are_told_apart():
    text = "[0] is left of [1, 2]: a dog [79, 47, 477, 937]; `cat`: [[1,2,3,4]]"
    dog, cat = from_model(text, SIZE, convention("per_mille_list"))
    assert (dog.label, cat.label) == ("a dog", "cat")
    (point,) = from_model("the nose: [500, 500]", SIZE, convention("per_mille"))
    assert point.label == "the nose" and point.shape.value == (640, 426.5)
    with pytest.raises(RegionTextError, match="no region"):
        from_model("[0] and [1, 2]", SIZE, convention("per_mille_json"))


def test_a_joined_list_is_read_as_it_was_written():
    items = ['{"bbox_2d": [1, 2, 3, 4], "label": "a"}', '{"point_2d": [5, 6]}']
    found = read_lists(join_json(items), convention("per_mille_json")).items
    assert [item.numbers for item in found] == [(1, 2, 3, 4), (5, 6)]
    assert join_json([]) == "```json\n[]\n```"


@pytest.mark.parametrize(
    "text",
    ["{" * 20000, "[" * 20000, '{"a":' * 8000, "[" + "1 " * 20000 + "x", '{"bbox_2d": [' * 4000],
    ids=lambda text: text[:8],
)
def test_a_reply_that_runs_away_is_refused_in_no_time(text):
    start = time.process_time()
    with pytest.raises(RegionTextError):
        from_model(text, SIZE, convention("per_mille_json"))
    assert time.process_time() - start < 2  # a second pass for each brace takes a minute
    nested = '{"bbox_2d": ' + "[" * 900 + "]" * 900 + "}"
    with pytest.raises(RegionTextError):
        from_model(nested, SIZE, convention("per_mille_json"))
