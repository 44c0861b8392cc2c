"""The client against servers that are slow, busy, broken or gone."""

import email.utils
import logging
import threading
import time

import pytest
from chat_requests import replies_by_key

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import read_totals

SECRET = "sk-test-very-secret-0123456789"


def ask(text, **more):
    return ChatRequest(key=text, messages=[{"role": "user", "content": text}], **more)


def test_replies_carry_the_callers_key_and_the_servers_counts(serve, settings, tmp_path):
    server = serve(lambda body, n: "re: " + body["messages"][-1]["content"])
    replies = replies_by_key(settings(server), tmp_path, (ask(f"q{i}") for i in range(30)))
    assert {key: reply.text for key, reply in replies.items()} == {
        f"q{i}": f"re: q{i}" for i in range(30)
    }
    totals = read_totals(tmp_path)
    assert (totals.requests, totals.prompt_tokens, totals.completion_tokens) == (30, 300, 150)
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 512, 1.0)


def test_nothing_is_asked_twice_in_one_run_or_the_next(serve, settings, tmp_path):
    server = serve()
    requests = [ask("same"), ChatRequest("other name", ask("same").messages), ask("same", seed=2)]
    first = replies_by_key(settings(server), tmp_path / "a", requests)
    assert set(first) == {"same", "other name"} and len(server.bodies) == 2
    with build_client(read_llm(settings(server)), tmp_path / "b") as client:
        again = list(client.complete(requests))
        assert client.cached == 3 and all(reply.cached for reply in again)
    assert len(server.bodies) == 2
    assert read_totals(tmp_path / "b").requests == 0


@pytest.mark.parametrize(
    "bad",
    [
        (500, {"error": {"message": "boom"}}),
        (503, {}),
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0"}),
        "cut",
        b"<html>proxy</html>",
        b'{"choices": []}',
        b'{"error": {"message": "upstream"}}',
    ],
    ids=["500", "503", "429", "cut", "html", "no choice", "error in 200"],
)
def test_a_bad_answer_is_asked_again(serve, settings, tmp_path, bad):
    server = serve(lambda body, n: bad if n < 3 else "fine")
    reply = replies_by_key(settings(server), tmp_path, [ask("q")])["q"]
    assert (reply.ok, reply.text, server.asked.total()) == (True, "fine", 3)
    assert read_totals(tmp_path).requests == 3


def test_a_server_that_stays_broken_gives_a_reason_and_is_asked_at_the_next_start(
    serve, settings, tmp_path
):
    server = serve(lambda body, n: (500, {"error": {"message": "boom"}}))
    config = settings(server, max_attempts=3)
    reply = replies_by_key(config, tmp_path, [ask("q")])["q"]
    assert (reply.failure, reply.error, server.asked.total()) == ("transient", "HTTP 500: boom", 3)
    server.answer = lambda body, n: "fine"
    assert replies_by_key(config, tmp_path, [ask("q")])["q"].text == "fine"


def test_a_slow_server_times_out(serve, settings, tmp_path):
    def slow(body, n):
        if n == 1:
            time.sleep(0.6)
        return "fine"

    server = serve(slow)
    reply = replies_by_key(settings(server, timeout=0.2), tmp_path, [ask("q")])["q"]
    assert reply.text == "fine" and server.asked.total() == 2
    totals = read_totals(tmp_path)
    assert totals.unknown == 1 and totals.completion_tokens == 512 + 5  # the lost one in full


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured_by_every_thread(serve, settings, tmp_path, form):
    begun = threading.Event()

    def busy(body, n):
        if not begun.is_set():
            begun.set()
            when = email.utils.formatdate(time.time() + 2.0, usegmt=True)
            header = {
                "seconds": {"Retry-After": "1"},
                "date": {"Retry-After": when},
                "milliseconds": {"retry-after-ms": "700"},
            }[form]
            return 429, {"error": {"message": "busy"}}, header
        return "fine"

    server = serve(busy)
    least = {"seconds": 1.0, "date": 0.9, "milliseconds": 0.7}[form]
    replies = replies_by_key(settings(server, concurrency=1), tmp_path, [ask("a"), ask("b")])
    assert all(reply.ok for reply in replies.values())
    assert server.times[1] - server.times[0] >= least - 0.02


def test_concurrency_and_rates_are_bounds(serve, settings, tmp_path):
    def slow(body, n):
        time.sleep(0.05)
        return "fine"

    server = serve(slow)
    replies_by_key(settings(server, concurrency=3), tmp_path, [ask(f"c{i}") for i in range(12)])
    assert server.most_running == 3
    server.times.clear()
    replies_by_key(settings(server, rpm=1200), tmp_path, [ask(f"r{i}") for i in range(10)])
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert sum(gaps) >= 9 * 0.05 - 0.15  # the first may arrive late; unbounded it is about 0.01
    server.times.clear()
    # About 56 tokens each (prompt estimate 5 + limit 51), corrected to 15 when they are counted.
    config = settings(server, tpm=56 * 600, concurrency=1)
    replies_by_key(config, tmp_path, [ask(f"t{i}", max_tokens=51) for i in range(4)])
    assert server.times[-1] - server.times[0] >= 3 * 0.05


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_cap_on_requests_is_exact(serve, settings, tmp_path, concurrency):
    server = serve(lambda body, n: (500, {}) if n == 1 else "fine")
    config = settings(server, caps={"max_requests": 7}, concurrency=concurrency)
    got = []
    with (
        pytest.raises(BudgetReached, match=r"max_requests \(7\) is reached"),
        build_client(read_llm(config), tmp_path) as client,
    ):
        got += client.complete(ask(f"q{i}") for i in range(100))
    assert server.asked.total() == 7 and len(got) == server.finished.total()
    with (  # a restart goes on counting
        pytest.raises(BudgetReached),
        build_client(read_llm(config), tmp_path) as client,
    ):
        list(client.complete(ask(f"q{i}") for i in range(100)))
    assert server.asked.total() == 7


def test_caps_on_tokens_and_money_hold_and_leave_less_than_one_request(serve, settings, tmp_path):
    server = serve()
    for name, more, cap in (
        ("tokens", {"caps": {"max_tokens": 400}}, 400 / 15),
        (
            "money",
            {
                "caps": {"max_cost": 0.001},
                "prices": {"tiny": {"input": 1.0, "output": 4.0}},
            },
            0.001 / 30e-6,
        ),
    ):
        server.asked.clear()
        config = settings(server, concurrency=4, **more)
        with (
            pytest.raises(BudgetReached, match="is reached"),
            build_client(read_llm(config), tmp_path / name) as client,
        ):
            list(client.complete(ask(f"{name}{i}", max_tokens=20) for i in range(100)))
        # One request may cost 20 tokens more and 60 of prompt than it turns out to.
        assert cap - 10 <= server.asked.total() <= cap
    assert read_totals(tmp_path / "money").cost == pytest.approx(server.asked.total() * 30e-6)


def test_a_schema_is_asked_for_until_the_server_refuses_it(serve, settings, tmp_path):
    def picky(body, n):
        if body.get("response_format", {}).get("type") == "json_schema":
            return 400, {"error": {"message": "response_format json_schema is not supported"}}
        if "response_format" in body:
            return 400, {"error": {"message": "unknown field response_format"}}
        return "{}"

    server = serve(picky)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    requests = [ask(f"q{i}", response_format=form) for i in range(5)]
    config = settings(server, concurrency=1)
    assert all(reply.ok for reply in replies_by_key(config, tmp_path, requests).values())
    kinds = [body.get("response_format", {}).get("type") for body in server.bodies]
    assert kinds == ["json_schema", "json_object", None, None, None, None, None]


def test_refusals_and_filters_are_this_requests_fault_only(serve, settings, tmp_path):
    def some(body, n):
        text = body["messages"][-1]["content"]
        if text == "long":
            return 400, {"error": {"message": "maximum context length is 10"}}
        if text == "foul":
            return 400, {"error": {"code": "content_filter", "message": "no"}}
        return "fine"

    replies = replies_by_key(
        settings(serve(some)), tmp_path, [ask("long"), ask("foul"), ask("good")]
    )
    assert replies["good"].ok
    assert replies["long"].failure == replies["foul"].failure == "refused"
    assert "maximum context length" in replies["long"].error
    assert replies["foul"].error.startswith("content filter")


def test_a_wrong_key_stops_the_run_and_is_shown_nowhere(serve, settings, tmp_path, caplog):
    def echo(body, n):
        return 401, {"error": {"message": f"Incorrect API key provided: {SECRET}"}}

    server = serve(echo)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ConfigError, match=r"HTTP 401: Incorrect API key provided: \*\*\*"),
        build_client(read_llm(settings(server)), tmp_path) as client,
    ):
        list(client.complete(ask(f"q{i}") for i in range(50)))
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert server.asked.total() <= 16  # those on their way
    server.answer = lambda body, n: f"your key is {SECRET}"
    assert replies_by_key(settings(server), tmp_path, [ask("k")])["k"].text == "your key is ***"
    assert SECRET not in caplog.text, "the key is in the log"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_one_process_spends_from_a_folder(serve, settings, tmp_path):
    config = read_llm(settings(serve()))
    with build_client(config, tmp_path), pytest.raises(ConfigError, match="another process"):
        build_client(config, tmp_path)
    build_client(config, tmp_path).close()


def test_numbers_that_are_none_are_not_sent_and_extras_are(serve, settings, tmp_path):
    server = serve()
    config = settings(
        server,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        extra_query={"api-version": "2024-10-21"},
    )
    replies_by_key(config, tmp_path, [ask("q", temperature=None, top_p=None)])
    assert set(server.bodies[0]) == {"model", "messages", "max_tokens", "chat_template_kwargs"}
    assert server.paths[0].endswith("/chat/completions?api-version=2024-10-21")
