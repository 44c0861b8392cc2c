"""Logprobs of several servers' forms, and which of them belong to the answer."""

import json
import math

import pytest
from verdict_replies import place, with_logprobs

from lavis.llm.base import ChatReply, TokenLogprobs
from lavis.llm.replies.completion import read_completion
from lavis.llm.replies.logprobs import from_json, read_logprobs, to_json


def read(body):
    return read_completion("k", json.dumps(body), lambda text: text)


def test_openais_form():
    reply = read(with_logprobs("Yes", [place("Yes", {"Yes": 0.7, "No": 0.2})]))
    (found,) = reply.logprobs
    assert found.token == "Yes" and found.logprob == pytest.approx(math.log(0.7))
    assert dict(found.top) == {"Yes": pytest.approx(math.log(0.7)),
                               "No": pytest.approx(math.log(0.2))}  # fmt: skip


def test_the_older_form_of_three_lists():
    node = {"tokens": ["Yes"], "token_logprobs": [-0.1], "top_logprobs": [{"Yes": -0.1, "No": -3}]}
    assert read_logprobs({"logprobs": node}, "Yes", "") == (
        TokenLogprobs("Yes", -0.1, (("Yes", -0.1), ("No", -3.0))),
    )


@pytest.mark.parametrize(
    "node",
    [None, {}, [], {"content": None}, {"content": []}, {"tokens": []}, "none", 7, {"content": [3]},
     {"content": [{"token": 3}]}, {"tokens": ["a"], "token_logprobs": [1, 2]}],
)  # fmt: skip
def test_none_and_what_is_none(node):
    assert read_logprobs({"logprobs": node}, "Yes", "") is None
    assert read({"choices": [{"message": {"content": "Yes"}, "logprobs": node}]}).text == "Yes"


def test_probabilities_in_place_of_their_logarithms_are_no_report():
    body = with_logprobs("Yes", [{"token": "Yes", "logprob": 0.7, "top_logprobs": []}])
    assert read(body).logprobs is None


def test_what_a_server_does_not_know_is_left_out():
    top = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -9999.0},
           {"token": "x", "logprob": None}, {"token": "y", "logprob": float("-inf")}]  # fmt: skip
    reply = read(with_logprobs("Yes", [{"token": "Yes", "logprob": -0.1, "top_logprobs": top}]))
    assert reply.logprobs[0].top == (("Yes", -0.1),)


THOUGHT = ["<think>", "Yes", " or", " No", "?", "</think>", "\n\n"]


@pytest.mark.parametrize("opens", [True, False], ids=["open mark", "open mark in the prompt"])
def test_reasoning_before_the_answer_is_left_out(opens):
    tokens = [*THOUGHT[0 if opens else 1 :], "No", "<|im_end|>"]
    places = [place(token, {token: 0.9}) for token in tokens]
    reply = read(with_logprobs("".join(tokens), places))
    assert (reply.text, reply.reasoning) == ("No", "Yes or No?")
    assert reply.logprobs[0].token == "No"


def test_so_is_reasoning_that_the_server_took_out_of_the_text():
    places = [place(token, {token: 0.9}) for token in [*THOUGHT, "\u0120Yes"]]
    body = with_logprobs("Yes", places)
    body["choices"][0]["message"]["reasoning_content"] = "Yes or No?"
    assert read(body).logprobs[0].token == "\u0120Yes"


def test_and_an_empty_thought():
    tokens = ["<think>", "\n\n", "</think>", "\n\n", "Yes"]
    reply = read(with_logprobs("".join(tokens), [place(t, {t: 0.9}) for t in tokens]))
    assert (reply.text, reply.logprobs[0].token) == ("Yes", "Yes")


def test_an_answer_that_the_report_does_not_hold_has_an_empty_one():
    body = with_logprobs("Yes", [place("maybe", {"maybe": 0.9})])
    body["choices"][0]["message"]["reasoning_content"] = "hm"
    assert read(body).logprobs == ()


def test_a_streams_reports_are_joined():
    report = [place("Y", {"Y": 0.5})]
    events = [
        {"choices": [{"delta": {"content": "Y"}, "logprobs": {"content": report}}]},
        {"choices": [{"delta": {"content": "es"}, "logprobs": [7]}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ]  # fmt: skip
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    reply = read_completion("k", text, lambda text: text)
    assert (reply.text, [each.token for each in reply.logprobs]) == ("Yes", ["Y"])


def test_what_is_stored_is_read_back():
    logprobs = (TokenLogprobs("Yes", -0.25, (("Yes", -0.25), ("\u2581No", -1.5))),)
    stored = json.loads(json.dumps(to_json(logprobs)))
    assert from_json(stored) == logprobs and from_json(None) is None
    assert ChatReply("k").logprobs is None
