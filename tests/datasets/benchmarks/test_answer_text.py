"""Answers compared word by word, with values by hand."""

import pytest

from lavis.datasets.benchmarks.answer_text import (
    NO_ANSWER,
    agreement,
    normalize_answer,
    quac_references,
    shared_words_f1,
)


def test_articles_case_and_punctuation_do_not_count():
    assert normalize_answer("  The Cat, an Animal! ") == "cat animal"


def test_f1_counts_shared_words_as_often_as_both_have_them():
    assert shared_words_f1("a red red cat", "the red cat") == pytest.approx(2 * 2 / 5)
    assert shared_words_f1("", "cat") == 0.0


def test_half_of_the_annotators_without_an_answer_leave_none():
    assert quac_references(["yes", NO_ANSWER]) == ()
    assert quac_references(["yes", "yes sir", NO_ANSWER]) == ("yes", "yes sir")
    assert agreement(("yes", "yes sir")) == pytest.approx(2 / 3)
    assert agreement(("yes",)) == 1.0
