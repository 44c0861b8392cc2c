"""Regions in the tags and tokens of families."""

import time

import pytest

from lavis.common.regions.conventions import RegionTextError, convention, from_model, write_reply
from lavis.common.regions.shapes import Shape

SIZE = (1280, 853)


def test_labels_of_several_boxes_and_other_spellings():
    (one, two) = from_model("a dog(79,47),(477,937)(1,2),(3,4)", SIZE, convention("qwen_tags"))
    assert one.label == two.label == "a dog"
    one, two = from_model(
        "cars<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8></s>",
        SIZE,
        convention("loc_bins"),
    )
    assert one.label == two.label == "cars"
    text = "<loc0048><loc0080><loc0958><loc0488><seg001><seg127> dog ; <loc0001><loc0002><loc0003>"
    (dog, cat) = from_model(text + "<loc0004> cat", SIZE, convention("loc4"))
    assert (dog.label, cat.label) == ("dog", "cat")
    text = (
        "<grounding> <phrase>two dogs</phrase><object><patch_index_0000><patch_index_0033>"
        "</delimiter_of_multi_objects/><patch_index_0034><patch_index_0943></object> run"
    )
    (one, two) = from_model(text, SIZE, convention("patches"))
    assert one.label == two.label == "two dogs"
    box = "<|begin_of_box|>[[79,47,477,937],[1,2,3,4]]<|end_of_box|>"
    assert len(from_model(box, SIZE, convention("per_mille_list"))) == 2
    text = '<points x1="27.8" y1="49.2" x2="1.0" y2="2" alt="dogs">dogs</points>'
    assert [r.label for r in from_model(text, SIZE, convention("point_percent"))] == ["dogs"] * 2


def test_several_points_share_a_tag():
    shapes = [Shape.of_point((900, 100)), Shape.of_point((5, 800)), Shape.of_point((1, 2))]
    labels = ["dog", "dog", "cat"]
    text = write_reply(shapes, (1000, 1000), convention("points"), labels)
    assert text == (
        '<points coords="1 1 005 800 2 900 100">dog</points> <points coords="1 1 001 002">cat'
        "</points>"
    )
    text = write_reply(shapes, (1000, 1000), convention("point_percent"), labels)
    assert text.startswith('<points x1="90.0" y1="10.0" x2="0.5" y2="80.0" alt="dog">dog</points>')


@pytest.mark.parametrize("name", ["qwen_tags", "ref_box", "loc4", "loc_bins", "patches", "points"])
def test_runaway_tags_are_refused_in_no_time(name):
    start = time.process_time()
    for text in ("(1" * 10000, "<ref>" * 5000, "<phrase>" * 4000, " " * 9000 + "x", '{"' * 10000):
        with pytest.raises(RegionTextError):
            from_model(text, SIZE, convention(name))
    assert time.process_time() - start < 4


def test_a_box_tag_that_another_follows_is_counted_as_lost():
    text = "<ref>a</ref><box>[[1, 2, 3, 4]]</box><ref>b</ref><box>[[5, 6<ref>c</ref>"
    replies = from_model(text, SIZE, convention("ref_box"))
    assert [reply.label for reply in replies] == ["a"] and replies.dropped == 1
