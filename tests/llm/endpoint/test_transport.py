"""Attempts on the loop's thread: what is on its way when the transport closes ends as dropped."""

import asyncio
import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chat_requests import ask, complete

from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.transport import MAX_BYTES, Dropped, Transport
from lavis.llm.money.ledger import read_totals

ROOT = Path(__file__).resolve().parents[3]


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


class Client:
    """Stands for `AsyncOpenAI`."""

    async def close(self):
        """Nothing is open."""


class EndlessTransport(Transport):
    """Its attempts never end by themselves, and may take no notice of being cancelled."""

    def __init__(self, stubborn):
        self.stubborn, self.started = stubborn, threading.Event()
        super().__init__(Client(), 60)

    async def _send(self, body, url):
        self.started.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_is_on_its_way_ends_as_dropped_when_the_transport_closes(stubborn):
    transport, ends = EndlessTransport(stubborn), []

    def send():
        try:
            transport.send({})
        except Dropped:
            ends.append("dropped")

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert transport.started.wait(10)
    transport.close()
    thread.join(10)
    assert ends == ["dropped"]
    with pytest.raises(Dropped):
        transport.send({})


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_without_bounds_is_not_read_to_its_end(serve, settings, tmp_path, packed):
    long = b" " * (3 * MAX_BYTES)
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
