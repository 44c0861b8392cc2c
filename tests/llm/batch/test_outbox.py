"""What goes into files: sizes, and how little is held in memory."""

import logging

import pytest

from lavis.common.errors import ConfigError
from lavis.llm.base import ChatRequest
from lavis.llm.batch.backend import BatchBackend
from lavis.llm.batch.outbox import MAX_HELD
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import read_totals


def ask(text, **more):
    return ChatRequest(text[:5], [{"role": "user", "content": text}], **more)


@pytest.fixture
def batched(settings):
    def make(server, **batch):
        return settings(server, mode="batch", batch={"poll_seconds": 0.01, **batch})

    return make


def test_one_request_above_the_limit_is_set_aside_and_the_rest_goes_on(serve, batched, tmp_path):
    server = serve()
    requests = [ask("small"), ask("large" * 200), ask("other")]
    with build_client(read_llm(batched(server, max_bytes=600)), tmp_path) as client:
        replies = {reply.key: reply for reply in client.complete(requests)}
    assert replies["small"].ok and replies["other"].ok
    large = replies["large"]
    assert large.failure == "refused"
    assert large.error.startswith("request too large: 1,2") and "max_bytes" in large.error
    assert all(len(file) <= 600 for file in server.files.values() if b"messages" in file)
    assert read_totals(tmp_path).requests == 2
    raised = read_llm(batched(server, max_bytes=700)).endpoint_identity
    assert raised != read_llm(batched(server, max_bytes=600)).endpoint_identity


def test_a_file_is_never_above_what_servers_take(serve, batched):
    with pytest.raises(ConfigError, match="max_bytes: 200000001 found"):
        read_llm(batched(serve(), max_bytes=200_000_001))


def test_no_more_is_drawn_while_a_cap_holds_many_back(serve, batched, tmp_path):
    server = serve()
    drawn = 0

    def requests():
        nonlocal drawn
        for i in range(5000):
            drawn += 1
            yield ask(f"{i:05d}", max_tokens=100)

    config = batched(server) | {"caps": {"max_tokens": 1500}}
    server.on_batch = lambda *_: seen.append(drawn)
    seen = []
    with (
        pytest.raises(BudgetReached, match="max_tokens"),
        build_client(read_llm(config), tmp_path) as client,
    ):
        list(client.complete(requests()))
    assert 10 < seen[0] < MAX_HELD + 20  # what was drawn when the first job was made
    assert read_totals(tmp_path).tokens <= 1500


def test_what_is_asked_again_stays_on_the_disk(serve, batched, tmp_path, monkeypatch):
    server = serve(lambda body, n: (429, {"error": {"message": "busy"}}) if n == 1 else "ok")
    held = []
    collect = BatchBackend.collect

    def watch(self):
        try:
            return collect(self)
        finally:
            held.extend(type(item).__name__ for item in self._outbox.held)

    monkeypatch.setattr(BatchBackend, "collect", watch)
    texts = [f"{i:05d}" for i in range(40)]
    with build_client(read_llm(batched(server, max_requests=10)), tmp_path) as client:
        replies = list(client.complete(ask(text) for text in texts))
    assert len(replies) == 40 and all(reply.ok for reply in replies)
    assert set(held) <= {"_HeldLine"} and len(server.batches) == 8


def test_a_line_holds_only_what_is_sent(serve, batched, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    server = serve(lambda body, n: (429, {"error": {"message": "busy"}}) if n == 1 else "ok")
    config = batched(server) | {
        "token_field": "max_completion_tokens",
        "extra_body": {"top_k": 5},
        "send_seed": False,
    }
    request = ask("hello", temperature=None, top_p=None, seed=3, max_tokens=7)
    with build_client(read_llm(config), tmp_path) as client:
        (reply,) = client.complete([request])
    assert reply.ok
    first, second = map(server.input, server.batches)
    assert first == second
    assert b'"max_completion_tokens": 7' in first and b'"top_k": 5' in first
    assert all(word not in first for word in (b"temperature", b"top_p", b"seed", b"extra_body"))
    assert "completed, 1 of 1 done" in caplog.text
