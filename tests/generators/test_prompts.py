"""Image prompts: the published rule, sentences, seeds."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis.common.text import EMPTY_PROMPT, random_sentence, split_sentences
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.prompts import image_prompts, prompt_seed

FIXTURES = Path(__file__).parents[1] / "fixtures" / "vlmig" / "eval"
GOLDEN = json.loads((FIXTURES / "image_prompts.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{len(c['sentences'])}-{c['k']}")
def test_prompts_equal_the_published_ones(case):
    text = " ".join(case["sentences"])
    given_sentences = image_prompts(
        text, case["k"], anchor_words=case["last_words"], sentences=case["sentences"]
    )
    assert given_sentences == case["prompts"]
    assert split_sentences(text) == case["sentences"]
    assert image_prompts(text, case["k"], anchor_words=case["last_words"]) == case["prompts"]


def test_the_whole_text_is_repeated_for_imagenetvc():
    question = "Is it red. Or  blue? Answer:"
    assert image_prompts(question, 3, verbatim=True) == [question] * 3


def test_a_text_without_words_is_drawn_as_a_random_image():
    assert image_prompts(" \n", 2) == [EMPTY_PROMPT] * 2
    assert image_prompts("", 0) == []
    assert random_sentence("", random.Random(0)) == EMPTY_PROMPT


def test_fewer_than_no_images_are_refused():
    with pytest.raises(ValueError, match="-1 images"):
        image_prompts("A cat.", -1)


@given(
    sentences=st.lists(st.text("ab ", min_size=1).filter(str.strip), min_size=1, max_size=6),
    k=st.integers(1, 14),
    anchor=st.integers(1, 8),
)
def test_the_rule_holds_for_any_sentences(sentences, k, anchor):
    text = " ".join(sentences)
    prompts = image_prompts(text, k, anchor_words=anchor, sentences=sentences)
    assert len(prompts) == k
    assert prompts[-1] == " ".join(text.split()[-anchor:])
    assert prompts[:-1] == [sentences[-i % len(sentences)] for i in range(1, k)]


@given(st.text("aA.!?\" '…\n3", max_size=60))
def test_splitting_loses_nothing_but_blanks(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He paid 3.50 dollars. She left.", ["He paid 3.50 dollars.", "She left."]),
        ("Dr. Smith met Mrs. Jones. They ate.", ["Dr. Smith met Mrs. Jones.", "They ate."]),
        ("J. R. Tolkien wrote. I read.", ["J. R. Tolkien wrote.", "I read."]),
        ("Use a tool, e.g. A saw. Or glue.", ["Use a tool, e.g. A saw.", "Or glue."]),
        ("Nuts, figs, etc. The rest is gone.", ["Nuts, figs, etc.", "The rest is gone."]),
        ("He works at Acme Inc. in Ohio.", ["He works at Acme Inc. in Ohio."]),
        ("The U.S. Army came. It left.", ["The U.S. Army came.", "It left."]),
        ("He moved to the U.S. It was cold.", ["He moved to the U.S.", "It was cold."]),
        ('"Stop!" he said. "Why?" I asked.', ['"Stop!"', "he said.", '"Why?"', "I asked."]),
        ("He left (at noon.) Then it rained.", ["He left (at noon.)", "Then it rained."]),
        ("Wait... what? Oh... Never.", ["Wait... what?", "Oh...", "Never."]),
        ("See example.org for No. 5. no more", ["See example.org for No. 5.", "no more"]),
        ("He said no. Then he left.", ["He said no.", "Then he left."]),
        ("So did I. Then we ate.", ["So did I.", "Then we ate."]),
        ("one line\nno mark", ["one line\nno mark"]),
        ("  ", []),
    ],
)
def test_sentences(text, expected):
    assert split_sentences(text) == expected


def test_a_training_prompt_is_one_of_the_sentences():
    drawn = {random_sentence("A cat. A dog. A cow.", random.Random(seed)) for seed in range(40)}
    assert drawn == {"A cat.", "A dog.", "A cow."}


def test_seeds_are_a_function_of_prompt_index_and_seed():
    # The first eight bytes of SHA-256 of '["a cat", 1, 7]', halved.
    assert prompt_seed("a cat", 1, 7) == 2127277478361384752
    others = [("a cat", 1, 8), ("a cat", 2, 7), ("a cat ", 1, 7), ("ä", 1, 7), ("a", 11, 7)]
    assert len({prompt_seed(*other) for other in others} | {prompt_seed("a cat", 1, 7)}) == 6
    assert ImageRequest("a cat", 1, 7).random_seed == prompt_seed("a cat", 1, 7)


def test_equal_prompts_are_numbered():
    requests = image_requests(["b", "a", "b", "b"], seed=3)
    assert [(r.prompt, r.index, r.seed) for r in requests] == [
        ("b", 0, 3),
        ("a", 0, 3),
        ("b", 1, 3),
        ("b", 2, 3),
    ]
