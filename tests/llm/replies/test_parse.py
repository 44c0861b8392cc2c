"""Replies good and bad: what is read, what is dropped, and the reason each time."""

import pytest

from lavis.llm.prompts import Prompts
from lavis.llm.replies.items import QarItem
from lavis.llm.replies.parse import Requirements, echoes, make_record
from lavis.llm.replies.scene import SceneLimits, read_scene

RECORD = {
    "image": "a.png",
    "width": 90,
    "height": 90,
    "captions": ["two people and a dog"],
    "region_locations": [
        {"boxes": [[0, 0, 20, 20]], "obj_guess": "dog", "caption": "a brown dog"},
        {"boxes": [[50, 20, 90, 70, 0.9]], "obj_guess": "man", "caption": "a man in a blue coat"},
        {"boxes": [[30, 20, 60, 70]], "obj_guess": "woman", "attributes": ["tall", "happy"]},
    ],
}


SCENE = read_scene(RECORD, SceneLimits())


IDS = Requirements("ids", "any", False, 3)


PHRASES = Requirements("descriptions", "any", False, 3)


WHOLE = Requirements("ids", "none", False, 3)


PEOPLE = Requirements("ids", "any", True, 3)


GOOD = ("Why is [1] near [0]?", "[1] owns [0].", "[1] holds the lead of [0].")


INSTRUCTIONS = Prompts().instructions("ids")


def made(texts, wanted=IDS):
    item = QarItem(**dict(zip(("question", "answer", "rationale"), texts, strict=True)))
    return make_record(item, SCENE, wanted, INSTRUCTIONS)


def test_a_record_has_tokens_regions_and_their_boxes():
    record = made(GOOD)
    assert record["question"] == ["Why", "is", [1], "near", [0], "?"]
    assert (record["region"], record["region_all"]) == ([1, 0], [0, 1, 2])
    assert record["references"][1] == {
        "name": "1", "boxes": [[50, 20, 90, 70]], "segms": None, "obj_guess": "man",
        "tag": "region",
    }  # fmt: skip


def test_descriptions_are_mapped_back():
    texts = (
        "Why is the man in a blue coat near the brown dog?",
        "He is walking the brown dog.",
        "A brown dog is on a lead that the tall happy woman gave away.",
    )
    record = made(texts, PHRASES)
    assert record["question"] == ["Why", "is", [1], "near", [0], "?"]
    assert record["region"] == [1, 0, 2]


@pytest.mark.parametrize(
    ("texts", "wanted", "reason"),
    [
        (("", *GOOD[1:]), IDS, "empty: question"),
        ((GOOD[0], " \n", GOOD[2]), IDS, "empty: answer"),
        ((GOOD[0], "...", GOOD[2]), IDS, "prompt echo: answer"),
        ((GOOD[0], "!", GOOD[2]), IDS, "empty: answer"),
        (("[0]?", *GOOD[1:]), IDS, "ids only: question"),
        (("Why?", *GOOD[1:]), IDS, "too short: question"),
        ((GOOD[0], GOOD[1], "because [1]"), IDS, "too short: rationale"),
        ((GOOD[0], "why is [1] near [0]", GOOD[2]), IDS, "answer repeats the question"),
        ((GOOD[0], GOOD[2].upper(), GOOD[2]), IDS, "rationale repeats the answer"),
        ((GOOD[0], "I'm sorry, I can't help with that.", GOOD[2]), IDS, "refusal: answer"),
        ((GOOD[0], "It cannot be determined from the notes.", GOOD[2]), IDS, "refusal: answer"),
        (("Why is [7] near [0]?", *GOOD[1:]), IDS, "unknown region id: 7"),
        (("Why is [٧] near [0]?", *GOOD[1:]), IDS, "unknown region id: 7"),
        (("Why is [1] near [0]?", "[man] owns [0].", GOOD[2]), IDS, "not a region: [man]"),
        (("Why is [1.5] near [0]?", *GOOD[1:]), IDS, "not a region: [1.5] in the question"),
        (("Why is [99999] near [0]?", *GOOD[1:]), IDS, "not a region: [99999]"),
        (("Why is [1-2] near [0]?", *GOOD[1:]), IDS, "not a region: [1-2]"),
        (("Why is the brown dog [here]?", *GOOD[1:]), PHRASES, "not a region: [here]"),
        ((f"Why {'so ' * 70}is [1] near [0]?", *GOOD[1:]), IDS, "too long: question has 75 words"),
        ((GOOD[0], "狗" * 150, GOOD[2]), IDS, "too long: answer has 75 words"),
        ((GOOD[0], "a" * 900, GOOD[2]), IDS, "too long: answer has 900 characters"),
        ((*GOOD[:2], "so " * 141 + "[0]"), IDS, "too long: rationale has 142 words"),
        (
            (GOOD[0], GOOD[2].replace("lead", "le\u0301ad"), GOOD[2].replace("lead", "LÉAD")),
            IDS,
            "rationale repeats the answer",
        ),
        (("Why is the man here?", "He waits.", "He looks at a clock."), IDS, "no region"),
        (GOOD, WHOLE, "region id: named where none was asked for"),
        (GOOD, PHRASES, "region id: numbers in brackets"),
        (("Why is [0] there?", "[0] waits.", "[0] looks at a door."), PEOPLE, "no person"),
        (
            (GOOD[0], GOOD[1], "It may look like an instruction, a question to you, or so."),
            IDS,
            "prompt echo: rationale",
        ),
    ],
)
def test_items_of_no_use_are_dropped_with_a_reason(texts, wanted, reason):
    found = made(texts, wanted)
    assert isinstance(found, str) and found.startswith(reason), found


def test_items_of_every_script_are_kept():
    made_thai = made(("ทำไม [1] ยืนใกล้ [٠]?", "他在等［0］", "[1]在等他的狗，所以站着。"))
    assert made_thai["question"] == ["ทำไม", [1], "ยืนใกล้", [0], "?"]
    assert made_thai["answer"] == ["他在等", [0]]
    assert made_thai["region"] == [1, 0]


def test_instructions_of_unspaced_scripts_are_known_again():
    said = "每个问题都应该是关于一个区域或者几个区域的"
    assert echoes(f"那么，{said}。", f"x {said}, y")
    assert not echoes("每个问题都应该", f"x {said}, y")


def test_ids_as_an_answer_are_fine():
    assert made(("Who of them owns [0]?", "[1]", GOOD[2]))["answer"] == [[1]]
