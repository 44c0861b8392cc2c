"""Text is cut only between characters as a reader sees them, whatever the script."""

import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.common.text import (
    fold,
    letter_runs,
    letters_only,
    num_words,
    pattern_of,
    shorten,
    units,
    words,
)

# Each one word, of which `\w+` of the standard library makes several.
ONE_WORD = [
    "ผู้ชาย",  # Thai: vowel and tone above
    "நாய்",  # Tamil: virama
    "हिन्दी",  # Hindi: vowel signs, virama
    unicodedata.normalize("NFD", "résumé"),
    "မြန်မာစာ",  # Burmese: vowel signs that are clusters of their own
    "שָׁלוֹם",  # Hebrew points
    "مَرْحَبًا",  # Arabic harakat
    "می\u200cخواهم",  # Persian: zero-width non-joiner
    "\u1112\u1161\u11ab",  # Hangul jamo
    "e\u0301\u200bx",
]


@pytest.mark.parametrize("word", ONE_WORD)
def test_marks_stay_in_their_word(word):
    assert words(f"a {word}, b") == ["a", word, "b"]
    assert letter_runs(f"{word}1") == [word]


def test_words_of_ascii_are_those_of_the_standard_library():
    assert words("It's a_b 3.5 well-known") == ["It", "s", "a_b", "3", "5", "well", "known"]
    assert words("It's a_b well-known", hyphens=True) == ["It's", "a_b", "well-known"]
    assert letter_runs("person_1 man2") == ["person", "man"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CAFÉ", unicodedata.normalize("NFD", "café")),
        ("STRASSE", "straße"),
        ("Ｄｏｇ３", "dog3"),
        ("ΟΔΟΣ", "οδος"),
        ("می\u200cخواهم", "میخواهم"),
        ("❤\ufe0f", "❤"),
    ],
)
def test_texts_that_read_the_same_fold_to_one(one, other):
    assert fold(one) == fold(other)


def test_other_vowels_are_other_words():
    assert fold("कि") != fold("की")
    assert letters_only("कि, की!", keep=" ") == "कि की"


def test_unspaced_scripts_are_counted_by_letters():
    assert [num_words(w) for w in ("dog", "...", "他为什么", "ผู้ชาย", "🐕")] == [1, 0, 2, 2, 0]
    assert units("dog 他x") == [("dog", 1.0), ("他", 0.5), ("x", 1.0)]


def test_a_cut_leaves_no_half_of_a_character():
    family = "👨\u200d👩\u200d👧"
    assert shorten(f"ab{family}c", 6) == "ab"
    assert shorten(f"ab{family}c", 7) == f"ab{family}"
    assert shorten("abc", 2) == "ab"


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])))
def test_words_and_cuts_end_where_characters_end(text):
    ends = {m.end() for m in regex.finditer(r"\X", text)} | {0}
    assert len(shorten(text, 5)) in ends
    for match in regex.finditer("|".join(map(pattern_of, words(text))) or r"(?!)", text):
        assert match[0]
    position = 0
    for word in words(text):
        position = text.index(word, position)
        assert position in ends and position + len(word) in ends
        position += len(word)
