"""Bodies that a server takes, keys that a header holds, and what goes to Azure and to proxies."""

import logging
import os

import pytest
from chat_requests import ask, complete
from verdict_replies import place, ranking, with_logprobs

from lavis.common.errors import ConfigError
from lavis.llm.base import RankRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.ledger import read_totals

SECRET = "sk-test-very-secret-0123456789"


def strict(*fields, status=400):
    """Answer only to bodies without some fields."""

    def answer(body, n):
        for field in fields:
            if field in body:
                message = f"Unsupported parameter: '{field}' is not supported with this model."
                return status, {"error": {"message": message, "param": field}}
        return "fine"

    return answer


@pytest.mark.parametrize(
    "field", ["temperature", "top_p", "seed", "max_tokens", "chat_template_kwargs"]
)
def test_what_a_server_does_not_take_is_left_out_of_the_run_and_told_once(
    serve, settings, tmp_path, caplog, field
):
    server = serve(strict(field))
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    config = settings(server, concurrency=1, extra_body=extra)
    with caplog.at_level(logging.WARNING):
        replies, error = complete(config, tmp_path, [ask(f"q{i}", seed=i) for i in range(6)])
    assert error is None and all(reply.ok for reply in replies.values())
    assert len(server.bodies) == 7 and field in server.bodies[0]
    assert all(field not in body for body in server.bodies[1:])
    assert all(body.get("max_tokens", body.get("max_completion_tokens")) for body in server.bodies)
    assert len(caplog.records) == 1 and field in caplog.text
    assert read_totals(tmp_path).completion_tokens == 6 * 5  # what was refused cost nothing


def test_a_server_that_takes_hardly_anything_is_found_out_by_many_at_once(
    serve, settings, tmp_path
):
    server = serve(strict("temperature", "top_p", "seed", "max_tokens", "response_format"))
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    requests = [ask(f"q{i}", seed=i, response_format=form) for i in range(40)]
    replies, error = complete(settings(server), tmp_path, requests)
    assert error is None and all(reply.ok for reply in replies.values()) and len(replies) == 40
    assert set(server.bodies[-1]) == {"model", "messages", "max_completion_tokens"}


def test_a_limit_that_a_server_takes_under_no_name_is_never_left_out(serve, settings, tmp_path):
    server = serve(strict("max_tokens", "max_completion_tokens"))
    config = settings(server, max_alike_failures=3, concurrency=1)
    replies, error = complete(config, tmp_path, [ask(f"q{i}") for i in range(99)])
    assert isinstance(error, EndpointStopped) and len(replies) < 10
    assert all("max_tokens" in b or "max_completion_tokens" in b for b in server.bodies)


def test_a_system_text_joins_the_first_turn_where_the_server_knows_no_system(
    serve, settings, tmp_path
):
    def answer(body, n):
        if body["messages"][0]["role"] == "system":
            return 400, {"object": "error", "message": "System role not supported", "code": 400}
        return body["messages"][0]["content"]

    replies, _ = complete(settings(serve(answer)), tmp_path, [ask("q")])
    assert replies["q"].text == "be brief\n\nq"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("sk-abc\n", "has a line break in it"),
        ("sk-a\rbc", "has a line break in it"),
        (" sk-abc", "has a blank before or after it"),
        ("sk-abc\u00a0", "has a blank before or after it"),
        ("sk abc", "has a blank in it"),
        ("\u201csk-abc\u201d", "no ASCII, such as a curly quote"),
        ("sk\u2013abc", "no ASCII"),
        ("ключ", "no ASCII"),
        ('"sk-abc"', "has quotation marks around it"),
        ("sk-\x07abc", "has a blank in it"),
    ],
)
def test_a_key_that_no_header_can_hold_is_told_without_it(
    serve, settings, tmp_path, monkeypatch, key, said
):
    monkeypatch.setitem(os.environ, "LLM_TEST_KEY", key)
    with pytest.raises(ConfigError, match=said) as error:
        build_client(read_llm(settings(serve())), tmp_path)
    assert "LLM_TEST_KEY" in str(error.value)
    assert "abc" not in str(error.value) and "ключ" not in str(error.value)


def test_azure_is_asked_with_its_version_and_its_header(serve, settings, tmp_path):
    server = serve()
    url = server.url.replace("/v1", "/openai/deployments/mine")
    config = settings(server, base_url=url, extra_query={"api-version": "2024-10-21"})
    complete(config, tmp_path, [ask("q")])
    path = "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    assert server.paths == [path] and server.headers[0]["api-key"] == SECRET


@pytest.mark.parametrize("proxy", ["nonsense://x", "http://x:port", "::::"])
def test_a_proxy_of_no_known_kind_is_told(serve, settings, tmp_path, monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    config = settings(serve(), base_url="http://model.example:8000/v1")
    with pytest.raises(ConfigError, match="HTTP_PROXY, HTTPS_PROXY, ALL_PROXY: a proxy"):
        build_client(read_llm(config), tmp_path)


def test_logprobs_go_together(serve, settings, tmp_path):
    server = serve(strict("logprobs"))
    replies, error = complete(settings(server), tmp_path, [ask("q", logprobs=5)])
    assert error is None and replies["q"].logprobs is None
    first, second = server.bodies
    assert (first["logprobs"], first["top_logprobs"]) == (True, 5)
    assert "logprobs" not in second and "top_logprobs" not in second


def test_fields_of_a_request_win_over_those_of_the_server(serve, settings, tmp_path):
    server = serve()
    config = settings(server, extra_body={"a": 1, "b": None})
    complete(config, tmp_path, [ask("q", extra={"a": 2, "c": None})])
    body = server.bodies[0]
    assert (body["a"], body["b"], "c" in body) == (2, None, False)


def test_reports_that_were_not_requested_are_dropped(serve, settings, tmp_path):
    server = serve(lambda body, n: with_logprobs("Yes", [place("Yes", {"Yes": 0.9})]))
    replies, _ = complete(settings(server), tmp_path, [ask("a"), ask("b", logprobs=2)])
    assert replies["a"].logprobs is None and replies["b"].logprobs[0].token == "Yes"


@pytest.mark.parametrize("url, path", [("/v1", "/score"), ("/other", "/other/score")])
def test_documents_are_scored_beside_openais_interface(serve, settings, tmp_path, url, path):
    server = serve(lambda body, n: ranking([0.5, 0.25], name="score", container="data"))
    config = settings(server, extra_body={"truncate_prompt_tokens": 9})
    config["base_url"] = server.url.removesuffix("/v1") + url
    request = RankRequest("k", [{"type": "text", "text": "q"}], ["a", "b"], "score")
    replies, error = complete(config, tmp_path, [request])
    assert error is None and replies["k"].text == "[0.5, 0.25]"
    assert server.paths == [path] and server.bodies[0]["truncate_prompt_tokens"] == 9


def test_other_interfaces_are_held_to_the_same_limits(serve, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("lavis.llm.endpoint.transport.MAX_BYTES", 100)
    request = RankRequest("k", [{"type": "text", "text": "q"}], ["a"])
    for answer, said in (
        ((200, b" " * 200), "malformed answer: it is longer"),
        ("cut", "connection cut"),
        ((503, {"error": {"message": "busy"}}), "HTTP 503: busy"),
    ):
        server = serve(lambda body, n, answer=answer: answer)
        config = settings(server, max_attempts=2)
        replies, _ = complete(config, tmp_path / said, [request])
        assert replies["k"].failure == "transient" and replies["k"].error.startswith(said)
        assert len(server.bodies) == 2
