"""Calls about files and jobs: keys that are sent back, answers that drip, lists without an end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lavis.llm.base import ChatRequest
from lavis.llm.batch.server import BatchServer, BatchTrouble
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.wire import Connection

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-test-very-secret-0123456789"


@pytest.fixture
def connect(settings):
    def make(server, **more):
        return BatchServer(Connection(read_llm(settings(server, **more))))

    return make


def drip(handler):
    """Answer with one byte each 0.1 s."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10000")
    handler.end_headers()
    for _ in range(10000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def test_the_key_is_in_no_downloaded_file_wherever_chunks_end(serve, connect, tmp_path):
    server = serve()
    for before in (0, 16383, 16384, 65536 - 10, 65536, 200_000):
        server.files["file-x"] = b"\xff" * before + KEY.encode() + b"\xc3\xa9\n" * 20_000
        assert connect(server).download("file-x", tmp_path / "x") is None
        assert (tmp_path / "x").read_bytes() == b"\xff" * before + b"***" + b"\xc3\xa9\n" * 20_000


def test_an_answer_that_drips_ends_at_the_timeout(serve, connect, tmp_path):
    server = serve()
    server.files["file-x"] = b""
    server.script.content = lambda name, n, data: drip
    start = time.monotonic()
    trouble = connect(server, timeout=0.5).download("file-x", tmp_path / "x")
    assert "time-out" in str(trouble) and time.monotonic() - start < 2
    assert 0 < len((tmp_path / "x").read_bytes()) < 20  # what came is kept


@pytest.mark.parametrize(
    "page",
    [{}, {"data": None}, {"data": [7, None, {}]}, {"data": [{"id": "b"}], "has_more": True},
     {"data": [{"id": "b", "metadata": "x", "input_file_id": 3}], "has_more": "yes"},
     {"data": [{"id": "b", "metadata": {"lavis_job": "me"}, "status": "Failed"}]}],
)  # fmt: skip
def test_a_list_of_jobs_may_be_odd_or_without_end(serve, connect, page):
    server = serve()
    server.script.listed = lambda jobs: page
    assert connect(server).find("file-0", "me") is None


def test_a_job_is_found_by_our_name_or_by_its_file_on_any_page(serve, connect):
    server = serve()
    rows = [{"id": f"b{i}", "status": "completed", "input_file_id": f"f{i}"} for i in range(150)]
    rows[120]["metadata"] = {"lavis_job": "me"}
    pages = iter([{"data": rows[:100], "has_more": True}, {"data": rows[100:], "has_more": False}])
    server.script.listed = lambda jobs: next(pages)
    assert connect(server).find("f130", "me") == "b120"


@pytest.mark.parametrize("answer", [b"", b"[]", b"null", b"<p>", b'{"error": "x"}', b'{"a": 1}'])
def test_an_upload_without_a_name_is_no_upload(serve, connect, tmp_path, answer):
    server = serve()
    server.script.upload = lambda n, content: answer
    (tmp_path / "x").write_bytes(b"{}\n")
    with pytest.raises(BatchTrouble, match="malformed answer"):
        connect(server).upload(tmp_path / "x")


CODE = """
import json, sys
from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
with build_client(read_llm(json.loads(sys.argv[1])), sys.argv[2]) as client:
    for reply in client.complete([ChatRequest("q", [{"role": "user", "content": "q"}])]):
        print(reply.text)
"""


@pytest.mark.parametrize("moment", ["wait", "look", "content"])
def test_an_interrupt_ends_at_once_and_the_job_goes_on(serve, settings, tmp_path, moment):
    server = serve()
    if moment == "wait":
        server.script.polls = 10**9
    elif moment == "look":
        server.script.look = lambda job, n: drip
    else:
        server.script.content = lambda name, n, data: drip
    config = settings(server, mode="batch", batch={"poll_seconds": 0.05}, timeout=60)
    command = [sys.executable, "-c", CODE, json.dumps(config), str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    part = {"wait": "batch_0", "look": "batch_0", "content": "/content"}[moment]
    while not any(line[0] == "GET" and line[1].endswith(part) for line in server.log):
        time.sleep(0.01)
    time.sleep(0.3)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - start < 5 and process.returncode != 0  # 1 s on a free machine
    server.script = type(server.script)()
    with build_client(read_llm(config), tmp_path) as client:
        (reply,) = client.complete([ChatRequest("q", [{"role": "user", "content": "q"}])])
    assert reply.text == "hello" and len(server.batches) == 1
