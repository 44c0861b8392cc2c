"""What ends a run of requests, what does not, and what is never sent twice."""

import pytest
from chat_requests import ask, complete

from lavis.common.errors import ConfigError
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.ledger import read_totals


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, {"error": "Unauthorized"}, ConfigError, "key: HTTP 401"),
        (404, {"error": {"code": "model_not_found", "message": "x"}}, ConfigError, "model: HTTP"),
        (400, {"code": "billing_not_active", "error": "no"}, EndpointStopped, "quota: HTTP 400"),
        (404, {"detail": "Not Found"}, ConfigError, r"nothing answers at http://127.*/completions"),
        (429, {"error": {"code": "insufficient_quota", "message": "x"}}, EndpointStopped, "quota:"),
        (400, {"error": {"message": "Billing hard limit reached"}}, EndpointStopped, "quota"),
        (402, {}, EndpointStopped, "payment required: HTTP 402"),
        (400, {"error": {"message": "image_url is only supported by certain models"}}, ConfigError,
         "pictures: HTTP 400"),
    ],
    ids=["key", "model", "code beside", "path", "quota", "billing", "402", "pictures"],
)  # fmt: skip
def test_what_no_request_can_pass_stops_the_run_and_once_mended_the_rest_is_asked(
    serve, settings, tmp_path, status, body, kind, said
):
    server = serve(lambda b, n: (status, body))
    requests = [ask(f"q{i}") for i in range(60)]
    replies, error = complete(settings(server), tmp_path, requests)
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error
    assert len(server.bodies) <= 16 and not any(reply.ok for reply in replies.values())
    assert {reply.failure for reply in replies.values()} <= {"transient"}
    assert read_totals(tmp_path).tokens == 0
    server.bodies.clear()
    server.answer = lambda b, n: "fine"
    replies, error = complete(settings(server), tmp_path, requests)
    assert error is None and all(reply.ok for reply in replies.values())
    assert len(server.bodies) == 60


@pytest.mark.parametrize(
    ("status", "concurrency"), [(400, 1), (400, 8), (422, 8), (500, 8), (418, 8)]
)
def test_failures_alike_stop_the_run_and_what_is_done_is_kept(
    serve, settings, tmp_path, status, concurrency
):
    def breaks(body, n):
        number = int(body["messages"][-1]["content"][1:])
        broken = (status, {"error": {"message": f"odd thing 0x{number:x} (request {n}-{number})"}})
        return "fine" if number < 20 else broken

    server = serve(breaks)
    config = settings(server, concurrency=concurrency, max_retry_wait=0.02)
    replies, error = complete(config, tmp_path, (ask(f"q{i}") for i in range(10_000)))
    with pytest.raises(
        EndpointStopped, match=rf"10 requests or more in a row failed alike.*HTTP {status}"
    ):
        raise error
    assert sum(reply.ok for reply in replies.values()) == 20
    tries = 2 if status < 500 else 6  # what nobody knows is not worth more
    assert server.asked.total() <= 20 + tries * (10 + 3 * concurrency)
    server.answer = lambda body, n: "fine"
    sent = server.asked.total()
    replies, error = complete(config, tmp_path, [ask(f"q{i}") for i in range(60)])
    assert error is None and server.asked.total() - sent == 40


def test_bad_items_among_good_ones_cost_only_themselves(serve, settings, tmp_path):
    def some(body, n):
        number = int(body["messages"][-1]["content"][1:])
        if number % 3 == 0:
            return 500, {"error": {"message": "boom"}}
        if number % 3 == 1:
            return 403, {
                "error": {"message": 'Your input was flagged for "violence".', "code": 403}
            }
        return "fine"

    config = settings(serve(some), max_attempts=2)
    replies, error = complete(config, tmp_path, [ask(f"q{i}") for i in range(90)])
    assert error is None and len(replies) == 90
    for number in range(90):
        failure = ("transient", "refused", "")[number % 3]
        assert replies[f"q{number}"].failure == failure
    assert replies["q1"].error.startswith("content filter: HTTP 403: Your input was flagged")


def test_bad_items_at_the_head_keep_the_rest_waiting_for_one_start_at_most(
    serve, settings, tmp_path
):
    def some(body, n):
        bad = int(body["messages"][-1]["content"][1:]) < 16
        return (500, {"error": {"message": "boom"}}) if bad else "fine"

    config = settings(serve(some), max_attempts=2, concurrency=1)
    requests = [ask(f"q{i}") for i in range(40)]
    replies, error = complete(config, tmp_path, requests)
    assert isinstance(error, EndpointStopped) and not any(r.ok for r in replies.values())
    replies, error = complete(config, tmp_path, requests)
    assert error is None and sum(reply.ok for reply in replies.values()) == 24
    assert [replies[f"q{i}"].failure for i in range(16)] == ["transient"] * 16


def test_refusals_of_every_request_stop_the_run_and_those_of_a_filter_do_not(
    serve, settings, tmp_path
):
    server = serve(lambda body, n: (413, "Request Entity Too Large"))
    replies, error = complete(settings(server), tmp_path / "a", [ask(f"q{i}") for i in range(500)])
    assert isinstance(error, EndpointStopped) and len(replies) < 40
    server.answer = lambda body, n: (400, {"error": {"code": "content_filter", "message": "no"}})
    replies, error = complete(settings(server), tmp_path / "b", [ask(f"q{i}") for i in range(50)])
    assert error is None and {reply.failure for reply in replies.values()} == {"refused"}
