"""Left and right of a mirrored image: what is changed, what is refused."""

import pytest

from lavis.common.regions.sides import swap_sides

CHANGED = [
    (
        "The man on the left holds [1] in his right hand.",
        "The man on the right holds [1] in his left hand.",
    ),
    ("the leftmost cup", "the rightmost cup"),
    ("Upper-left corner, RIGHT side", "Upper-right corner, LEFT side"),
    ("She turns left.", "She turns right."),
    ("to the far right of [0]", "to the far left of [0]"),
    (
        "the left and right sides, from left to right",
        "the right and left sides, from right to left",
    ),
    ("[2], left of the door, is on his left", "[2], right of the door, is on his right"),
    ("a right-hand glove on the left glove", "a left-hand glove on the right glove"),
    ("a bright copyright light, clefts", "a bright copyright light, clefts"),
    ("Ein Hund, señor, in the bottom left", "Ein Hund, señor, in the bottom right"),
    ("", ""),
]
UNSURE = [
    "A man walks right into the wall.",
    "She is leaning right up against [0].",
    "Is that right?",
    "the right one",
    "the right person for this",
    "He left the room on the left.",
    "Only one is left.",
    "He is right there, on the left",
    "in the right place",
    "That looks right.",
    "She has the right to vote",
    "right and wrong",
    "The hands of the clock turn clockwise",
    "left",
    "l'homme à gauche",
    "der Mann links",
    "el hombre a la izquierda",
    "左の犬",
    "बाईं ओर का आदमी",
]


@pytest.mark.parametrize(("text", "expected"), CHANGED, ids=lambda v: v[:20])
def test_sides_change_and_change_back(text, expected):
    assert swap_sides(text) == expected
    assert swap_sides(expected) == text


@pytest.mark.parametrize("text", UNSURE)
def test_what_is_not_sure_is_refused(text):
    assert swap_sides(text) is None
