"""Servers that are not there, certificates, redirects and proxies, each told in a sentence."""

import socket
import ssl
import subprocess
import threading
import time

import pytest
from chat_requests import ask, complete

from lavis.common.errors import ConfigError
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.ledger import read_totals

SECRET = "sk-test-very-secret-0123456789"


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
