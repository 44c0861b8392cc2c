"""What the client makes of a server that refuses, dies, hangs or is not there at all."""

import email.utils
import gzip
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.endpoint.transport import MOST_BYTES
from lavis.llm.money.ledger import read_totals

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-test-very-secret-0123456789"


def ask(text, **more):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    return ChatRequest(key=text, messages=messages, **more)


def complete(config, folder, requests):
    """Return replies by key, and what ended the run."""
    replies = {}
    with build_client(read_llm(config), folder) as client:
        try:
            for reply in client.complete(requests):
                replies[reply.key] = reply
        except (ConfigError, EndpointStopped) as error:
            return replies, error
    return replies, None


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


def dead_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def self_signed(tmp_path):
    """Return the address of a TLS server with a certificate that nobody knows, or None."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                context.wrap_socket(listener.accept()[0], server_side=True)
            except OSError:
                if listener.fileno() < 0:
                    return

    threading.Thread(target=accept, daemon=True).start()
    return listener, f"https://localhost:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, r"refused: nothing listens at 127\.0\.0\.1:\d+; start the server"),
        ("http://no-such-host.invalid:8000/v1", r"DNS: the name of no-such-host.invalid:8000 is"),
        (
            "http://b\u00fccher.invalid:80/v1",
            r"DNS: the name of b\u00fccher.invalid:80 is not known",
        ),
        ("http://[::1]:9/v1", r"at \[::1\]:9; |no connection: to \[::1\]:9 "),
    ],
    ids=["refused", "dns", "letters", "numbers"],
)
def test_a_server_that_is_not_there_is_told_in_a_sentence_and_costs_nothing(
    serve, settings, tmp_path, unknown_names, url, said
):
    config = settings(serve(), base_url=url or dead_address(), max_retry_wait=0.05, max_attempts=2)
    begin = time.monotonic()
    _, error = complete(config, tmp_path, (ask(f"q{i}") for i in range(10_000)))
    with pytest.raises(EndpointStopped, match=said):
        raise error
    assert time.monotonic() - begin < 30
    totals = read_totals(tmp_path)
    assert (totals.requests, totals.tokens, totals.unknown) == (0, 0, 0)


def test_a_resolver_that_hangs_is_not_told_as_a_server_that_does(
    serve, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(1.5))
    config = settings(serve(), base_url="http://slow.invalid/v1", timeout=0.3, max_attempts=1)
    replies, _ = complete(config, tmp_path, [ask("q")])
    assert replies["q"].error == (
        "no connection: slow.invalid:80 was not found and reached within 0.3 s"
    )
    assert read_totals(tmp_path).requests == 0


def test_a_certificate_that_nobody_knows_stops_at_once_with_the_remedy(serve, settings, tmp_path):
    made = self_signed(tmp_path)
    if made is None:
        pytest.skip("openssl is not installed")
    listener, url = made
    config = settings(serve(), base_url=url)
    _, error = complete(config, tmp_path, [ask(f"q{i}") for i in range(50)])
    listener.close()
    with pytest.raises(
        EndpointStopped, match=r"certificate: that of localhost:\d+ .*SSL_CERT_FILE"
    ):
        raise error
    assert read_totals(tmp_path).requests == 0


def test_https_to_a_server_without_it_is_told(serve, settings, tmp_path):
    server = serve()
    config = settings(server, base_url=server.url.replace("http:", "https:"))
    _, error = complete(config, tmp_path, [ask("q")])
    with pytest.raises(ConfigError, match=r"TLS: no secure connection .* wants http://"):
        raise error


def test_redirects_that_lead_nowhere_are_told_with_where_they_lead(serve, settings, tmp_path):
    gone = dead_address()
    server = serve(lambda body, n: (307, {}, {"Location": f"{gone}/chat/completions"}))
    config = settings(server, max_retry_wait=0.05, max_attempts=1)
    replies, _ = complete(config, tmp_path / "away", [ask("q")])
    here, there = (url.split("/")[2] for url in (server.url, gone))
    said = f"refused: nothing listens at {there} (redirected from {here}); "
    assert replies["q"].error.startswith(said)

    server.answer = lambda body, n: (308, {}, {"Location": "/v1/chat/completions"})
    _, error = complete(config, tmp_path / "round", [ask(f"q{i}") for i in range(50)])
    with pytest.raises(ConfigError, match=r"redirect: .* in a circle; look at llm.base_url"):
        raise error
    assert server.asked["q49"] == 0 and read_totals(tmp_path / "round").unknown == 0


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_without_bounds_is_not_read_to_its_end(serve, settings, tmp_path, packed):
    long = b" " * (3 * MOST_BYTES)
    headers = {"Content-Encoding": "gzip"} if packed else {}
    server = serve(lambda body, n: (200, gzip.compress(long) if packed else long, headers))
    replies, _ = complete(settings(server, max_retry_wait=0.05), tmp_path, [ask("q")])
    assert replies["q"].error == "malformed answer: it is longer than 16 MB"
    totals = read_totals(tmp_path)
    assert (totals.requests, totals.unknown) == (2, 2)


@pytest.mark.parametrize("what", ["headers", "body"])
def test_an_attempt_ends_in_its_time_however_the_server_dribbles(serve, settings, tmp_path, what):
    server = serve()
    server.dribble = what
    config = settings(server, timeout=0.8, max_attempts=1, concurrency=2)
    begin = time.monotonic()
    replies, _ = complete(config, tmp_path, [ask("q"), ask("r")])
    assert time.monotonic() - begin < 3
    assert replies["q"].error == "timeout: no answer within 0.8 s"
    assert read_totals(tmp_path).unknown == 2


def test_closing_drops_what_is_on_its_way_and_counts_it_in_full(serve, settings, tmp_path):
    release = threading.Event()
    server = serve(lambda body, n: "now" if body["messages"][-1]["content"] == "q0" else slow())

    def slow():
        release.wait(20)
        return "late"

    with build_client(read_llm(settings(server, timeout=60, concurrency=4)), tmp_path) as client:
        first = next(client.complete(ask(f"q{i}", max_tokens=100) for i in range(50)))
        begin = time.monotonic()
    assert first.text == "now" and time.monotonic() - begin < 2
    totals = read_totals(tmp_path)
    assert totals.unknown == totals.requests - 1 > 0
    assert totals.completion_tokens == 5 + 100 * totals.unknown
    release.set()


CODE = """
import json, sys
from lavis.common.command import command
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm

@command
def main():
    config, folder = json.loads(sys.argv[1]), sys.argv[2]
    requests = (ChatRequest(f"q{i}", [{"role": "user", "content": f"q{i}"}]) for i in range(999))
    with build_client(read_llm(config), folder) as client:
        for reply in client.complete(requests):
            print(reply.text, flush=True)

sys.exit(main())
"""


@pytest.mark.parametrize("server_does", ["hangs", "asks to wait", "fails"])
def test_ctrl_c_ends_a_run_within_two_seconds(serve, settings, tmp_path, server_does):
    def answer(body, n):
        if server_does == "hangs":
            time.sleep(60)
        if server_does == "asks to wait":
            return 429, {"error": {"message": "busy"}}, {"Retry-After": "300"}
        return 500, {}

    server = serve(answer)
    config = json.dumps(settings(server, timeout=100, min_retry_wait=30.0))
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, config, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE
    )
    while len(server.bodies) < 8:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    time.sleep(0.2)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - begin < 5.0  # 1.2 s on a free machine
    assert process.returncode == 130 and b"Traceback" not in said
    totals = read_totals(tmp_path)
    assert totals.unknown == (0 if server_does == "asks to wait" else 8)


def test_a_long_wait_stops_the_run_and_says_until_when(serve, settings, tmp_path):
    server = serve(lambda body, n: (429, {"error": {"message": "later"}}, {"Retry-After": "86400"}))
    _, error = complete(settings(server), tmp_path, [ask(f"q{i}") for i in range(40)])
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86400))
    with pytest.raises(EndpointStopped, match=rf"asks for one of 24 h, longer than .* from {day}"):
        raise error
    date = email.utils.formatdate(time.time() + 4000, usegmt=True)
    server.answer = lambda body, n: (503, {}, {"Retry-After": date})
    _, error = complete(settings(server), tmp_path, [ask("q")])
    assert "asks for one of 67 min" in str(error)


@pytest.mark.parametrize("value", ["1e300", "nan", "-3", "soon", "inf", "9" * 500])
def test_odd_waits_are_as_none(serve, settings, tmp_path, value):
    busy = (429, {"error": {"message": "busy"}}, {"Retry-After": value})
    server = serve(lambda body, n: busy if n < 3 else "fine")
    replies, error = complete(settings(server), tmp_path, [ask("q")])
    assert error is None and replies["q"].text == "fine"


def test_a_wait_is_told_once_for_all_threads(serve, settings, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lavis.llm.endpoint.backend.SAID_SECONDS", 0.5)
    busy = (429, {"error": {"message": "busy"}}, {"Retry-After": "1"})
    server = serve(lambda body, n: busy if n == 1 else "fine")
    with caplog.at_level(logging.WARNING):
        complete(settings(server), tmp_path, [ask(f"q{i}") for i in range(8)])
    assert len(caplog.records) in (1, 2)  # a thread may come late on a machine with much to do
    assert caplog.records[0].getMessage().startswith("HTTP 429: busy; waiting 1")


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


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"base_url": "http://host:99999/v1"}, "the port is no number from 1 to 65535"),
        ({"base_url": "http://host:80a/v1"}, "the port is no number from 1 to 65535"),
        ({"base_url": "http://host:0/v1"}, "the port is no number from 1 to 65535"),
        ({"base_url": "host:8000/v1"}, "write http:// or https:// and a host"),
        ({"base_url": "http:///v1"}, "write http:// or https:// and a host"),
        ({"base_url": "http://[::1/v1"}, "is no address"),
        ({"base_url": "http://host/v1 "}, "has a blank or a line break in it"),
        ({"base_url": "http://host/v1/chat/completions"}, "leave out /chat/completions"),
        ({"base_url": "https://x.azure.com/openai/deployments/d?api-version=1"},
         "extra_query={api-version:"),
        ({"extra_query": {"key": SECRET}}, "'key' looks like a secret"),
        ({"extra_body": {"temperature": 1}}, "temperature is set by this program"),
        ({"extra_body": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"server": " "}, "server: empty"),
        ({"max_server_wait": float("nan")}, "expected a finite number"),
        ({"timeout": 1e300}, "timeout: 1e.300 found, expected less than or equal to 1000000"),
    ],
)  # fmt: skip
def test_settings_that_reach_no_server_are_told(serve, settings, more, said):
    with pytest.raises(ConfigError, match=said) as error:
        read_llm(settings(serve(), **more))
    assert SECRET not in str(error.value)


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


@pytest.mark.parametrize("bypassed", [False, True])
def test_a_proxy_that_is_not_there_is_told_by_its_own_place(
    serve, settings, tmp_path, monkeypatch, bypassed
):
    proxy = dead_address().split("/")[2]
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{SECRET}@{proxy}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1" if bypassed else "")
    server = serve()
    config = settings(server, max_retry_wait=0.05, max_attempts=1)
    replies, _ = complete(config, tmp_path, [ask("q")])
    place = server.url.split("/")[2]
    said = f"proxy: no connection to {place} through {proxy} ("
    assert replies["q"].ok if bypassed else replies["q"].error.startswith(said)
    assert read_totals(tmp_path).requests == bypassed
