"""The table of errors, against bodies that servers have sent (`error_bodies.jsonl`)."""

import json
import re
from pathlib import Path

import pytest

from lavis.llm.endpoint.failures import classify, error_table

LINES = (Path(__file__).parents[1] / "error_bodies.jsonl").read_text(encoding="utf-8").splitlines()


CASES = [json.loads(line) for line in LINES]


FIELDS = [case for case in CASES if case["kind"] == "simplify"]


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


def named(case):
    return case["name"]


@pytest.mark.parametrize("case", CASES, ids=named)
def test_real_bodies_have_their_class_as_text_and_as_json(case):
    body = case["body"]
    for form in (body, body if isinstance(body, str) else json.dumps(body)):
        problem = classify(case["status"], form, {}, sent=SENT)
        assert (problem.kind, problem.field) == (case["kind"], case.get("field", ""))


@pytest.mark.parametrize("case", FIELDS, ids=named)
def test_a_parameter_is_left_out_only_where_it_was_sent(case):
    less = {name: value for name, value in SENT.items() if name != case["field"]}
    if case["field"] == "system":
        less["messages"] = less["messages"][1:]
    again = classify(case["status"], case["body"], {}, sent=less)
    assert again.field != case["field"] and again.kind != "refused"


def wrapped(status, body):
    """Yield a body as gateways hand it on: OpenRouter, Gemini, FastAPI, LiteLLM, Mistral."""
    text = body if isinstance(body, str) else json.dumps(body)
    provider = {"raw": text, "provider_name": "X"}
    upstream = {"message": "Provider returned error", "code": status, "metadata": provider}
    yield {"error": upstream}
    yield [body]
    yield {"detail": body}
    yield {
        "error": {"message": f"litellm.BadRequestError: XException - {text}", "code": str(status)}
    }
    yield {"object": "error", "message": text, "type": "internal_error_proxy", "code": "1000"}


@pytest.mark.parametrize("case", CASES, ids=named)
def test_an_error_keeps_its_class_in_the_wrapping_of_a_gateway(case):
    status, body = case["status"], case["body"]
    if not isinstance(body, dict | list):
        return  # a page or a bare text stands by itself
    for form in wrapped(status, body):
        problem = classify(status, form, {}, sent=SENT)
        assert (problem.kind, problem.field) == (case["kind"], case.get("field", "")), form


def test_every_row_is_held_by_a_body_and_says_who_sends_it():
    from lavis.llm.endpoint.error_body import read_error

    table, used = error_table(), set()
    for case in CASES:
        error = read_error(case["body"])
        rows = table.later_rules if error.page else table.rules + table.later_rules
        used.add(next((rule for rule in rows if rule.fits(case["status"], error)), None))
    missing = [r for r in table.rules + table.later_rules if r not in used and r.phrase]
    assert [rule.phrase for rule in missing] == ["proxy"]  # what it says is its status


@pytest.mark.parametrize("status", [400, 404, 409, 415, 418, 422, 451])
@pytest.mark.parametrize(
    "body",
    [
        *("", None, "no", {}, [], {"error": None}, {"error": {}}, {"error": {"message": None}}, 7),
        *("\ud800", {"detail": [[[[[[[[[[1]]]]]]]]]]}, b"\xff\xfe", "{" * 5000),
        {"error": {"message": "x" * 99999}},
    ],
    ids=range(14),
)  # fmt: skip
def test_what_nobody_knows_is_never_held_against_the_request(status, body):
    problem = classify(status, body, {}, sent=SENT)
    assert problem.kind == ("fatal" if status == 404 else "transient")
    assert len(problem.reason) < 600
    if status not in (404, 409):
        assert problem.most_attempts == 2


def test_a_redirect_without_an_address_is_told_by_its_own_status_and_cost_nothing():
    problem = classify(304, "", {})
    assert (problem.kind, problem.reason, problem.cost) == (
        *("transient", "unknown error: HTTP 304", "none"),
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [(429, "transient"), (502, "transient"), (402, "stopped"), (None, "transient")],
)
def test_an_error_inside_a_success_is_read_by_its_own_code(code, kind):
    problem = classify(200, {"error": {"message": "Provider returned error", "code": code}})
    assert (problem.kind, problem.cost) == (kind, "unknown")


@pytest.mark.parametrize(
    ("status", "cost"),
    [(400, "none"), (429, "none"), (500, "unknown"), (502, "unknown"), (503, "none"),
     (504, "unknown"), (520, "unknown"), (524, "unknown"), (529, "none")],
)  # fmt: skip
def test_what_a_gateway_lost_may_have_been_charged(status, cost):
    assert classify(status, "", {}).cost == cost


def test_a_path_that_nothing_answers_is_told_with_what_to_try():
    problem = classify(404, {"detail": "Not Found"}, address="http://host:8000/chat/completions")
    assert re.match(
        r"address: HTTP 404: Not Found; nothing answers at http://host:8000/chat/completions: "
        "look at llm.base_url, which for most servers ends in /v1",
        problem.reason,
    )
