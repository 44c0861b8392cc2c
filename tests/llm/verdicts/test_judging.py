"""A judge's reply to a grade: as written, or expected over the digits; or why there is none."""

import json
import math

import pytest

from lavis.llm.base import ChatReply, TokenLogprobs
from lavis.llm.verdicts.judging import VerdictError, judge_format, read_grade


def token(text, top=None):
    pairs = tuple((t, math.log(p)) for t, p in (top or {text: 0.9}).items())
    return TokenLogprobs(text, -0.1, pairs)


def tokens(reply, digit, top):
    """Return the report of a reply that is cut before its grade."""
    head, _, tail = reply.rpartition(digit)
    return tuple([token(piece) for piece in head] + [token(digit, top)] + [token(t) for t in tail])


def test_the_reason_comes_before_the_verdict():
    schema = judge_format()["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["reason", "verdict"]
    assert schema["properties"]["verdict"]["enum"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("verdict", "score"),
    [(1, 0.0), (2, 0.25), (5, 1.0), ("4", 0.75), ("4/5", 0.75), (3.0, 0.5), ("2 out of 5", 0.25)],
)
def test_a_grade_is_a_quarter_above_the_one_below(verdict, score):
    text = json.dumps({"reason": "the  cup\nis red", "verdict": verdict})
    found = read_grade(ChatReply("k", text))
    assert (found.score, found.mass, found.reason) == (score, None, "the cup is red")


def test_the_expectation_over_the_digits_is_taken_where_they_are_reported():
    text = '{"reason": "verdict: 1 would be harsh", "verdict": 4}'
    top = {"4": 0.5, "5": 0.3, " 3": 0.1, "\n": 0.05}
    found = read_grade(ChatReply("k", text, logprobs=tokens(text, "4", top)))
    assert found.mass == pytest.approx(0.9)
    assert found.verdict == pytest.approx((4 * 0.5 + 5 * 0.3 + 3 * 0.1) / 0.9)
    assert (found.written, found.score) == (4, pytest.approx((found.verdict - 1) / 4))


@pytest.mark.parametrize("digit", ["4", " 4", '": 4', "4}"])
def test_digits_may_share_their_token_with_signs(digit):
    text = '{"reason": "r", "verdict": 4}'
    start = text.rfind(digit)
    head, tail = text[:start], text[start + len(digit) :]
    top = {digit: 0.6, digit.replace("4", "2"): 0.4}
    report = [token(piece) for piece in head] + [token(digit, top)] + [token(t) for t in tail]
    found = read_grade(ChatReply("k", text, logprobs=tuple(report)))
    assert found.verdict == pytest.approx(4 * 0.6 + 2 * 0.4)


@pytest.mark.parametrize("top", [{"4": 0.2, "x": 0.7}, {"four": 0.9}])
def test_a_token_that_is_hardly_a_digit_leaves_the_grade_as_written(top):
    text = '{"reason": "r", "verdict": 4}'
    found = read_grade(ChatReply("k", text, logprobs=tokens(text, "4", top)))
    assert (found.verdict, found.mass) == (4.0, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"reason": "r", "verdict": 7}', "bad verdict: '7', no whole number from 1 to 5"),
        ('{"reason": "r", "verdict": 0}', "bad verdict: '0'"),
        ('{"reason": "r", "verdict": 3.5}', "bad verdict: '3.5'"),
        ('{"reason": "r", "verdict": "four"}', "bad verdict: 'four'"),
        ('{"reason": "r", "verdict": true}', "bad verdict: 'true'"),
        ('{"reason": "r", "verdict": null}', "bad verdict: 'null'"),
        ('{"reason": "r", "verdict": [4]}', "bad verdict: 'no number'"),
        ('{"reason": "r", "verdict": "99999999999999999999"}', "bad verdict: '9999"),
        ('{"verdict": 2} or rather {"verdict": 4}', "bad verdict: several, 2, 4"),
        ('{"reason": "r"}', "bad verdict: none in"),
        ("It is a fine text.", "bad verdict: none in 'It is a fine text.'"),
        ("I'm sorry, but I can't help with that.", "refusal: I'm sorry"),
        ('{"reason": "the cup', "cut off: max_tokens was used up before the verdict"),
    ],
)
def test_what_is_no_grade_is_refused_with_a_reason(text, said):
    with pytest.raises(VerdictError) as error:
        read_grade(ChatReply("k", text))
    assert str(error.value).startswith(said)


def test_a_grade_given_twice_is_one():
    assert read_grade(ChatReply("k", 'So {"verdict": 2}. {"verdict": "2"}')).written == 2
