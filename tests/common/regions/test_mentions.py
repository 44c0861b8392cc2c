"""Numbers of replies, and how an error shows a text."""

import pytest

from lavis.common.regions.mentions import RegionTextError, numbers_in, numbers_of, shown


def test_numbers_are_of_ascii_digits():
    assert numbers_of(["1", " -2.5", "+3."], "") == (1.0, -2.5, 3.0)
    for part in ("", "٣", "1e3", "0x1", "nan", "1_0", "½", "1" * 400):
        with pytest.raises(RegionTextError, match=r"no number: .* in 'a reply'"):
            numbers_of([part], "a reply")


def test_numbers_of_json_are_finite():
    assert numbers_in([1, 2.5], "") == (1.0, 2.5)
    for values in ([True], ["1"], [float("inf")], [10**400], None, "12", {"a": 1}):
        with pytest.raises(RegionTextError, match=r"no numbers: .* in 'a reply'"):
            numbers_in(values, "a reply")


def test_a_long_text_is_shown_in_one_short_line():
    assert shown("a\n b") == "'a b'"
    assert len(shown("word " * 1000)) <= 122 and shown("x" * 300).endswith("...'")
    assert shown("\ud800").isascii()  # a lone surrogate, which no file of UTF-8 can hold
