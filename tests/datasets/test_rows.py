"""Rows without pixels, and their random numbers."""

import dataclasses

from lavis.datasets.rows import DrawsImages, Row, mirrored, row_random


def test_a_row_has_one_text_or_several():
    assert Row(0, "k", "a", {}).all_texts == ("a",)
    assert Row(0, "k", "a", {}, texts=("a", "b")).all_texts == ("a", "b")


def test_random_numbers_follow_seed_epoch_and_row():
    assert row_random(1, 2, 3).random() == row_random(1, 2, 3).random()
    assert row_random(1, 2, 3).random() != row_random(1, 3, 2).random()


def test_only_a_data_set_that_asks_for_images_draws_them():
    assert not isinstance(Row(0, "k", "a", {}), DrawsImages)


def test_a_row_is_mirrored_with_its_texts_or_not_at_all():
    row = Row(
        3,
        "key",
        "the cup on the left",
        {"index": 3},
        texts=("the cup on the left", "the hat"),
        parts=({"question": "on the left?", "answer": "a cup"}, {"question": "on the left?"}),
        targets={"label": 1, "question": "on the left?", "answers": ["a cup", "a hat"]},
    )
    other = mirrored(row)
    assert other.texts == ("the cup on the right", "the hat") and other.text == other.texts[0]
    assert other.parts[0] == {"question": "on the right?", "answer": "a cup"}
    assert other.targets == {"label": 1, "question": "on the right?", "answers": ["a cup", "a hat"]}
    assert other.mirror and mirrored(other) == dataclasses.replace(row, mirror=True)
    for change in (
        {"texts": ("is that right?", "the hat")},
        {"parts": ({"answer": "he left"}, {})},
        {"targets": {"answers": ["all right", "no"]}},
        {"targets": {"word_boxes": {"cup": [[0, 0, 1, 1]]}}},
    ):
        assert mirrored(dataclasses.replace(row, **change)) is None
