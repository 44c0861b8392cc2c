"""Words of a prompt that an image can show."""

from lavis.generators.words import content_words, tokens


def test_words():
    assert tokens("Woman’s T-shirt, 3.5!") == ["woman's", "t-shirt", "3", "5"]
    assert content_words("What is the shape of 2 red boxes?") == ["shape", "red", "boxes"]
