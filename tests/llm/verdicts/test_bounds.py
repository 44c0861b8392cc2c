"""P(yes) and its bounds: values by hand, and random vocabularies cut to lists."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.llm.base import TokenLogprobs
from lavis.llm.verdicts.bounds import yes_or_no
from lavis.llm.verdicts.words import VerdictWords

YES, NO = VerdictWords.of(["Yes"]), VerdictWords.of(["No"])
SPELLINGS = sorted(YES.spellings | NO.spellings)


def listed(top, token=None):
    pairs = tuple((text, math.log(p)) for text, p in top.items())
    written = token or max(top, key=top.get)
    return TokenLogprobs(written, math.log(top.get(written, 1e-9)), pairs)


def test_both_listed_with_all_of_their_spellings():
    top = {"Yes": 0.3, " yes": 0.3, "No": 0.2, **dict.fromkeys(SPELLINGS, 0.0)}
    top = {text: p or 1e-30 for text, p in top.items()} | {"Yes": 0.3, " yes": 0.3, "No": 0.2}
    found = yes_or_no(listed(top), YES, NO)
    assert found.mass == pytest.approx(0.8)
    assert found.interval() == (pytest.approx(0.75), pytest.approx(0.75))
    assert found.score() == pytest.approx(0.75)
    assert found.interval("vocabulary") == (pytest.approx(0.6), pytest.approx(0.6))


def test_what_a_list_leaves_out_is_bounded():
    found = yes_or_no(listed({"Yes": 0.6, "No": 0.3, "The": 0.02}), YES, NO)
    # five spellings of each are not listed, each at most 0.02, together at most 0.08
    assert (found.missing_yes, found.missing_no) == (pytest.approx(0.08), pytest.approx(0.08))
    low, high = found.interval()
    assert (low, high) == (pytest.approx(0.6 / 0.98), pytest.approx(0.68 / 0.98))
    assert found.score() == pytest.approx(2 / 3)
    assert found.score("vocabulary") == pytest.approx(0.6)


def test_absent_is_not_impossible():
    found = yes_or_no(listed({"No": 0.9, "The": 0.01}), YES, NO)
    low, high = found.interval()
    most = min(0.09, 6 * 0.01)
    assert (low, high) == (0.0, pytest.approx(most / (most + 0.9)))
    assert found.score() == pytest.approx((most / 2) / (most / 2 + 0.9))
    nothing = yes_or_no(listed({"The": 0.9, "A": 0.05}), YES, NO)
    assert (nothing.mass, nothing.score()) == (0.0, 0.5)
    assert nothing.interval()[0] == 0.0 and nothing.interval()[1] == 1.0


def test_the_order_does_not_matter_and_the_written_token_counts_once():
    top = {"The": 0.05, "No": 0.3, "Yes": 0.6}
    backwards = dict(reversed(top.items()))
    assert yes_or_no(listed(top), YES, NO) == yes_or_no(listed(backwards), YES, NO)
    alone = TokenLogprobs("Yes", math.log(0.6), (("No", math.log(0.3)), ("The", math.log(0.05))))
    assert yes_or_no(alone, YES, NO).yes == pytest.approx(0.6)


def test_a_sampled_token_in_place_of_the_last_one_does_not_narrow_the_bounds():
    """A server may list the token that it drew, however unlikely, with the likeliest others."""
    found = yes_or_no(listed({"odd": 1e-6, "No": 0.6, "The": 0.1}, token="odd"), YES, NO)
    assert found.missing_yes == pytest.approx(min(0.3, 6 * 0.1), abs=1e-5)


def test_numbers_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"add up to 1\.8"):
        yes_or_no(listed({"Yes": 0.9, "No": 0.9}), YES, NO)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_the_truth_lies_between_the_bounds(data):
    """Of a random distribution over words and spellings, cut to the k likeliest tokens."""
    spellings = data.draw(st.lists(st.sampled_from(SPELLINGS), min_size=1, unique=True))
    words = [f"w{n}" for n in range(data.draw(st.integers(1, 40)))]
    vocabulary = [*spellings, *words]
    size = len(vocabulary)
    logits = data.draw(st.lists(st.floats(-12, 6), min_size=size, max_size=size))
    total = math.fsum(map(math.exp, logits))
    truth = {text: math.exp(x) / total for text, x in zip(vocabulary, logits, strict=True)}
    ordered = sorted(vocabulary, key=truth.get, reverse=True)
    count = data.draw(st.integers(2, 20))
    kept = ordered[:count]
    written = data.draw(st.sampled_from(vocabulary))
    if written not in kept and data.draw(st.booleans()):
        kept = [written, *kept[: count - 1]]  # as vLLM lists it
    kept = data.draw(st.permutations(kept))
    pairs = tuple((text, math.log(truth[text])) for text in kept)
    place = TokenLogprobs(written, math.log(truth[written]), pairs)
    found = yes_or_no(place, YES, NO)
    yes = math.fsum(p for text, p in truth.items() if YES.says(text))
    no = math.fsum(p for text, p in truth.items() if NO.says(text))
    low, high = found.interval()
    ratio = yes / (yes + no)
    assert low - 1e-9 <= ratio <= high + 1e-9
    assert low - 1e-9 <= found.score() <= high + 1e-9
    least, most = found.interval("vocabulary")
    assert least - 1e-9 <= yes <= most + 1e-9
