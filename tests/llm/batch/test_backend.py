"""The Batch API: sizes, errors by line, and jobs that outlive the process that made them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_requests import replies_by_key

from lavis.llm.base import ChatRequest
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import read_totals

ROOT = Path(__file__).resolve().parents[3]


def ask(text, **more):
    return ChatRequest(key=text, messages=[{"role": "user", "content": text}], **more)


@pytest.fixture
def batched(settings):
    def make(server, **batch):
        limits = {"poll_seconds": 0.02, **batch}
        return settings(server, mode="batch", batch=limits)

    return make


def test_requests_go_in_files_of_limited_size_and_come_back_by_id(serve, batched, tmp_path):
    server = serve(lambda body, n: "re: " + body["messages"][-1]["content"])
    config = batched(server, max_requests=4, max_jobs=2)
    replies = replies_by_key(config, tmp_path, [ask(f"q{i}") for i in range(10)])
    assert {key: reply.text for key, reply in replies.items()} == {
        f"q{i}": f"re: q{i}" for i in range(10)
    }
    inputs = [f for name, f in server.files.items() if name.count("-") == 1]
    assert [len(f.splitlines()) for f in inputs] == [4, 4, 2]
    assert json.loads(inputs[0].splitlines()[0])["url"] == "/v1/chat/completions"
    assert read_totals(tmp_path).requests == 10
    replies_by_key(batched(server, max_bytes=400), tmp_path, [ask(f"b{i}") for i in range(3)])
    assert len(server.batches) == 3 + 3  # a line has more than 200 bytes


def test_lines_that_fail_or_never_come_back_are_queued_again(serve, batched, tmp_path):
    def answer(body, n):
        text = body["messages"][-1]["content"]
        if text == "bad":
            return 400, {"error": {"message": "no such thing"}}
        if n == 1:
            return {"busy": (429, {"error": {"message": "busy"}}), "lost": "cut"}.get(text, "ok")
        return "ok"

    server = serve(answer)
    replies = replies_by_key(batched(server), tmp_path, map(ask, ("fine", "busy", "lost", "bad")))
    assert [replies[k].text for k in ("fine", "busy", "lost")] == ["ok"] * 3
    assert replies["bad"].failure == "transient" and "no such thing" in replies["bad"].error
    assert server.asked == {'"fine"': 1, '"busy"': 2, '"lost"': 2, '"bad"': 2}
    # `lost` was not done the first time, as the server counts.
    assert len(server.batches) == 2 and read_totals(tmp_path).requests == 6


def test_caps_hold_for_what_is_inside_files(serve, batched, tmp_path):
    server = serve()
    config = batched(server) | {"caps": {"max_requests": 5}}
    with pytest.raises(BudgetReached, match=r"max_requests \(5\)"):
        replies_by_key(config, tmp_path / "a", [ask(f"q{i}") for i in range(9)])
    assert server.finished.total() == 5
    # Reserved in full, three fit (about 60 + 40 tokens each); as they turn out, 15 tokens each.
    config = batched(server) | {"caps": {"max_tokens": 300}}
    with pytest.raises(BudgetReached, match=r"max_tokens \(300\)"):
        replies_by_key(config, tmp_path / "b", [ask(f"r{i}", max_tokens=40) for i in range(50)])
    totals = read_totals(tmp_path / "b")
    assert 300 - 100 <= totals.tokens <= 300


def test_batched_tokens_cost_half(serve, batched, tmp_path):
    config = batched(serve()) | {"prices": {"tiny": {"input": 1.0, "output": 4.0}}}
    replies_by_key(config, tmp_path, [ask("q")])
    assert read_totals(tmp_path).cost == pytest.approx(30e-6 / 2)


def test_a_failed_job_is_told_and_costs_nothing(serve, batched, tmp_path):
    def fail(server, name):
        server.batches[name] |= {
            "status": "failed",
            "errors": {"object": "list", "data": [{"code": "x", "message": "bad file"}]},
        }

    server = serve()
    server.on_batch = fail
    with pytest.raises(EndpointStopped, match="bad file"):
        replies_by_key(batched(server), tmp_path, [ask("q")])
    assert read_totals(tmp_path).requests == 0


CODE = """
import json, sys
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.failures import EndpointStopped
config, folder = json.loads(sys.argv[1]), sys.argv[2]
requests = [ChatRequest(f"q{i}", [{"role": "user", "content": f"q{i}"}]) for i in range(6)]
with build_client(read_llm(config), folder) as client:
    print(json.dumps({r.key: r.text for r in client.complete(requests)}))
"""


@pytest.mark.parametrize("moment", ["while it is made", "while it runs", "while it is read"])
def test_a_killed_process_finds_its_jobs_again(serve, batched, tmp_path, moment):
    server = serve(lambda body, n: "re: " + body["messages"][-1]["content"])
    process = None

    def kill(*_):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    if moment == "while it is made":  # the server has the job, its id never arrives
        server.on_batch = kill
    config = json.dumps(batched(server, poll_seconds=0.2, max_requests=3))
    command = [sys.executable, "-c", CODE, config, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    if moment == "while it runs":
        while not any(line[0] == "create" for line in server.log):
            time.sleep(0.01)
        kill()
    elif moment == "while it is read":
        while not server.finished:
            time.sleep(0.01)
        kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    server.on_batch = None
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == {f"q{i}": f"re: q{i}" for i in range(6)}
    assert len(server.batches) == 2 and set(server.finished.values()) == {1}
    assert read_totals(tmp_path).requests == 6
