"""Region ids in texts: found in every spelling, kept by every round trip."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.llm.region_text import region_ids, render, tokenize, tokenize_handles


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
