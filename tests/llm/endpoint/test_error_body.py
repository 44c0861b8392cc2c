"""What is read of an error: its words, the wait it names, in linear time."""

import email.utils
import time

import pytest

from lavis.llm.endpoint.error_body import retry_after
from lavis.llm.endpoint.failures import classify

SENT = {
    "model": "m",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    "max_tokens": 512,
    "temperature": 0.7,
    "top_p": 1.0,
    "seed": 3,
    "response_format": {"type": "json_schema", "json_schema": {}},
    "chat_template_kwargs": {"enable_thinking": False},
}


def test_what_repeats_the_request_lends_no_words():
    told = {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "Field required",
                        "input": "my image was flagged, the billing is invalid"}]}  # fmt: skip
    assert classify(422, told, {}, sent=SENT).kind == "transient"
    text = (
        "[{'type': 'missing', 'msg': 'Field required', 'input': {'content': 'an invalid image'}}]"
    )
    assert classify(400, {"message": text, "code": 400}, {}, sent=SENT).kind == "transient"


def test_waits_are_read_from_headers_and_words_and_odd_ones_are_none():
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    for value, seconds in (("7", 7.0), ("0.5", 0.5), (date, 100.0), ("86400", 86400.0)):
        assert retry_after({"Retry-After": value}) == pytest.approx(seconds, abs=2)
    past = email.utils.formatdate(time.time() - 100, usegmt=True)
    assert retry_after({"retry-after": past}) == 0.0
    for odd in ("1e300", "nan", "inf", "-5", "soon", "", "9" * 400, "Mon, 99 Foo 2020", "١٢٣x"):
        assert retry_after({"Retry-After": odd}) is None
    assert retry_after({"RETRY-AFTER-MS": "1500", "Retry-After": "9"}) == 1.5
    for words, seconds in (
        ("Please try again in 6m12.5s.", 372.5),
        ("Please retry after 20 seconds", 20),
        ("Rate limit of 10 per 60s exceeded. Please wait 5 seconds before retrying.", 5),
    ):
        assert classify(429, {"error": {"message": words}}).retry_after == seconds
    delay = [{"error": {"code": 429, "message": "x", "details": [{"retryDelay": "31s"}]}}]
    assert classify(429, delay).retry_after == 31


@pytest.mark.parametrize("unit", ["<", "<title>", "<title", "retry in 1m1s", '{"error":', "[", '"'])
@pytest.mark.parametrize("head", ["<html>", ""])
def test_time_grows_with_the_length_of_a_body_alone(head, unit):
    start = time.process_time()
    classify(502, head + unit * (300_000 // len(unit)))
    assert time.process_time() - start < 5  # below 0.2 s; a square of the length would be minutes
