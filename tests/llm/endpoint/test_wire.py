"""Bodies that a server takes, keys that a header holds, and what goes to Azure and to proxies."""

import logging
import os

import pytest
from chat_requests import ask, complete

from lavis.common.errors import ConfigError
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
