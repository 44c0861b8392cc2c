"""Rows without pixels, and their random numbers."""

from lavis.datasets.rows import DrawsImages, Row, row_random


def test_a_row_has_one_text_or_several():
    assert Row(0, "k", "a", {}).all_texts == ("a",)
    assert Row(0, "k", "a", {}, texts=("a", "b")).all_texts == ("a", "b")


def test_random_numbers_follow_seed_epoch_and_row():
    assert row_random(1, 2, 3).random() == row_random(1, 2, 3).random()
    assert row_random(1, 2, 3).random() != row_random(1, 3, 2).random()


def test_only_a_data_set_that_asks_for_images_draws_them():
    assert not isinstance(Row(0, "k", "a", {}), DrawsImages)
