"""Region ids in texts: found in every spelling, kept by every round trip, in every script."""

import json
import time
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.common.text import CLUSTER
from lavis.datasets.files.json_values import json_line
from lavis.datasets.lck.tokens import read_tokens
from lavis.llm.replies.parse import QarItem, Requirements, make_record
from lavis.llm.replies.region_text import (
    no_region,
    region_ids,
    render,
    same,
    tokenize,
    tokenize_handles,
)
from lavis.llm.replies.scene import SceneLimits, read_scene
from lavis.processors.region import RegionTag, tokens_to_text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Why is [4] near [0,2]?", ["Why", "is", [4], "near", [0, 2], "?"]),
        ("[0] and [1] talk.", [[0], "and", [1], "talk", "."]),
        ("[0 and 1] [2, 3, and 4]", [[0, 1], [2, 3, 4]]),
        ("[0]'s hat", [[0], "'s", "hat"]),
        ("[0][1]", [[0], [1]]),
        ("([[2]])", ["(", [2], ")"]),
        ("[person 1] and [Region 2] and [#3]", [[1], "and", [2], "and", [3]]),
        ("[0, 0]", [[0]]),
        (
            "at [12:30] it's 3.5 o'clock",
            ["at", "[", "12", ":", "30", "]", "it's", "3.5", "o'clock"],
        ),
        ("don't... wait", ["don't", "...", "wait"]),
        ("", []),
        ("[1.5] [-1] [1-3]", ["[", "1.5", "]", "[", "-", "1", "]", "[", "1-3", "]"]),
        ("[٣] और [३]، ［3］ 【๓】", [[3], "और", [3], "،", [3], [3]]),
        ("[٣، ٤]", [[3, 4]]),
        ("\u2067[0\u200f]\u2069", ["\u2067", [0], "\u2069"]),
        ("ทำไมผู้ชายยืนใกล้ [0]?", ["ทำไมผู้ชายยืนใกล้", [0], "?"]),
        ("நாய் ஏன் [0]?", ["நாய்", "ஏன்", [0], "?"]),
        ("हिन्दी में क्यों?", ["हिन्दी", "में", "क्यों", "?"]),
        ("re\u0301sume\u0301's fu\u0308r", ["re\u0301sume\u0301's", "fu\u0308r"]),
        ("מַה צה״ל", ["מַה", "צה״ל"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        (
            "👨\u200d👩\u200d👧👍🏽🇩🇪🇫🇷 1\ufe0f\u20e3",
            ["👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇫🇷", "1\ufe0f\u20e3"],
        ),
        ("soft\u00adhyphen ❤\ufe0f!\u0301", ["soft\u00adhyphen", "❤\ufe0f", "!\u0301"]),
    ],
)
def test_spellings(text, tokens):
    assert tokenize(text) == tokens
    assert tokenize(render(tokens)) == tokens


PIECES = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(
            ["[", "]", ",", " and ", "&", "#", "region ", "'s", "\n", "1", "22", "99999"]
        ),
        st.lists(st.integers(0, 9999), min_size=1, max_size=4).map(str),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(PIECES)
def test_rendering_and_reading_again_keeps_ids_and_tokens(text):
    tokens = tokenize(text)
    again = tokenize(render(tokens))
    assert region_ids(again) == region_ids(tokens)
    assert again == tokens


def test_phrases_become_ids_the_longest_first():
    handles = {"the man": 0, "the man in a blue coat": 1, "the second dog": 2}
    text = "Why does A man in a  blue Coat pat the second dog's head, man? The manhole is closed."
    tokens = tokenize_handles(text, handles)
    assert tokens[:10] == ["Why", "does", [1], "pat", [2], "'s", "head", ",", [0], "?"]
    assert tokens[10:] == ["The", "manhole", "is", "closed", "."]
    assert tokenize_handles("No [0] here.", {}) == ["No", "[", "0", "]", "here", "."]


def test_phrases_are_met_however_their_letters_are_composed():
    handles = {"the café's dog": 0, "the 穿蓝衣的男人": 1, "the แมว": 2}
    text = unicodedata.normalize("NFD", "A Café’s dog") + "为什么在穿蓝衣的男人旁边?"
    assert tokenize_handles(text, handles) == [[0], "为什么在", [1], "旁边", "?"]
    assert tokenize_handles("แมวดำ ดูแมว", handles) == [[2], "ดำ", "ดู", [2]]
    assert tokenize_handles("แมว\u0e49", handles) == ["แมว\u0e49"]  # another letter's beginning


@pytest.mark.parametrize(
    ("text", "odd"),
    [
        ("[0] and [3, 4] [[2]] [person 2] [٣]", ""),
        ("he said [sic] it [...] […]", ""),
        ("看板に【出口】とある", ""),
        ("[man] waits", "[man]"),
        ("[-1]", "[-1]"),
        ("[1.5]", "[1.5]"),
        ("［1.5］", "［1.5］"),
        ("[99999]", "[99999]"),
        ("[1-3]", "[1-3]"),
        ("[region three]", "[region three]"),
        ("[①] [三]", "[①]"),
        ("【3†a】", "【3†a】"),
        ("[]", "[]"),
        ("near [0", "["),
        ("near 0]", "]"),
        ("at [12:30]", "[12:30]"),
    ],
)
def test_brackets_that_name_no_region(text, odd):
    assert no_region(text) == odd


def test_the_same_in_other_case_composition_and_punctuation():
    assert same(tokenize("Où est le Café, [0]?"), tokenize("où est le cafe\u0301 [٠]"))
    assert not same(tokenize("[0] कि"), tokenize("[0] की"))


SCRIPTS = st.sampled_from(
    ["ผู้ชาย", "நாய்", "हिन्दी", "க்ஷ", "e\u0301", "שָׁ", "مَرْ", "می\u200cخ", "\u1112\u1161\u11ab", "한",
     "👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇩", "1\ufe0f\u20e3", "❤\ufe0f", "\u200f", "\u0301",
     "\u0600", "\U000110bd", "\u200d", "\ufe0f", "o'c", "’s", "...", "..\u0301", "-", ",", "\x00",
     "\x85", ":ำ", "\ud83d", "\ude00", "\ufeff", " ", "\n", "\u2028", "\u00a0", "狗", "か\u3099"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(SCRIPTS, st.text(max_size=5)), max_size=10).map("".join)
SCENE = read_scene(
    {
        "image": "a.png",
        "region_locations": [
            {"boxes": [[0, 0, 9, 9]], "caption": name}
            for name in ("a brown dog", "ผู้ชายใส่เสื้อ", "re\u0301sume\u0301")
        ],
    },
    SceneLimits(),
)
NAMES = {"ids": ["[0]", "[1]", "[2]"], "descriptions": [r.handle for r in SCENE.regions]}
TAGS = {number: RegionTag(index=number) for number in range(3)}


def squeezed(text):
    """Return a text without white space, control characters being blanks; halves are U+FFFD."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(regex.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=4, max_size=4), st.sampled_from(sorted(NAMES)))
def test_a_text_survives_its_record(texts, style):
    """From the model's words over the file to the words that the critic and a page are shown."""
    first, second, third = NAMES[style]
    one, two, three, four = (regex.sub(r"[\[\]［］〚〛⟦⟧【】〔〕]", "", text) for text in texts)
    item = QarItem(
        question=f"Why does {first} {one} ?",
        answer=f"For {second} {two}",
        rationale=f"{three} since {third} , {first} so {four}",
    )
    made = make_record(item, SCENE, Requirements(style, "any", False, 3), "")
    if isinstance(made, str):
        assert made.startswith(("answer repeats", "rationale repeats", "refusal"))
        return
    record = json.loads(json_line(made))
    for part in ("question", "answer", "rationale"):
        tokens = read_tokens(record, part)
        expected = getattr(item, part)
        for number, name in enumerate(NAMES[style]):
            expected = expected.replace(name, f"[{number}]")
        assert squeezed(tokens_to_text(tokens, TAGS)) == squeezed(expected)
        if style == "ids":
            assert_no_character_is_torn(tokens, expected)


def assert_no_character_is_torn(tokens, text):
    ends, length = {0}, 0
    clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for run in regex.sub(r"[\x00-\x1f\x7f-\x9f]", " ", clean).split():
        ends |= {length + match.end() for match in regex.finditer(CLUSTER, run)}
        length += len(run)
    at = 0
    for token in tokens:
        at += len(f"[{token[0]}]" if isinstance(token, list) else token)
        assert at in ends, (tokens, at)
    assert at == length


@pytest.mark.parametrize("unit", ["[", "【", "[1,", "【1", "1", "[ 1 ,"])
def test_time_grows_with_the_length_alone(unit):
    start = time.process_time()
    tokenize(unit * (60_000 // len(unit)))
    no_region(unit * (60_000 // len(unit)))
    assert time.process_time() - start < 5  # below 0.3 s; a square of the length would be minutes
