"""Stages whose texts come from a server that sees images: a real one, on loopback."""

from __future__ import annotations

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from launching import main_of
from lavis.common.errors import ConfigError
from lavis.tasks.knowledge.writers import build_writer
from lavis.verbalizers.config import WriterConfig

pytest.importorskip("openai")
verbalize = main_of("scripts/verbalize.py")


class Server(ThreadingHTTPServer):
    """Answers with the size and mean colour of the image it was sent; counts requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.broken = [], False
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
        content = body["messages"][0]["content"]
        text, status = self.answer(content), 200
        if self.server.broken and isinstance(content, list) and "broken" in text:
            status = 500
        reply = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text},
                 "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
        }  # fmt: skip
        data = json.dumps(reply if status == 200 else {"error": {"message": "down"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, content):
        if isinstance(content, str):
            return "1. What is [0]?\n2. Is it broken?"
        url = content[0]["image_url"]["url"]
        head, _, data = url.partition(",")
        assert head == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        words = content[1]["text"] if len(content) > 1 else ""
        return f"{image.size[0]}x{image.size[1]} {words}"

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def stages(server, world):
    client = {
        "backend": "openai", "model": "m", "concurrency": 3, "max_attempts": 1, "timeout": 20,
        "base_url": f"http://127.0.0.1:{server.server_port}/v1",
        "cache_dir": str(world / "replies"),
    }  # fmt: skip
    writer = {"type": "client", "client": client, "image_size": 30}
    return {
        "captions": {"writer": writer, "samples": 1, "prompt": "Describe."},
        "dynamic": {
            "asker": writer, "answerer": writer, "questions": 2, "answer_prompt": "{question}",
        },
    }  # fmt: skip


def records(world):
    lines = (world / "out/verbalized.jsonl").read_text().splitlines()
    return {record["image"]: record for record in map(json.loads, lines)}


def rejects(world):
    return [json.loads(line) for line in (world / "out/rejects.jsonl").read_text().splitlines()]


def summary(world):
    return json.loads((world / "out/summary.json").read_text())


def test_images_are_sent_and_answers_come_back(world, server, stages, run_file):
    assert verbalize(run_file(stages)) == 0
    found = records(world)
    assert {tuple(record["captions"]) for record in found.values()} == {("30x20 Describe.",)}
    assert found["p2.png"]["dynamic"] == [
        {"question": "What is [0]?", "answer": "30x20 What is [0]?"},
        {"question": "Is it broken?", "answer": "30x20 Is it broken?"},
    ]
    asked = [b["messages"][0]["content"] for b in server.seen]
    notes = [content for content in asked if isinstance(content, str)]
    assert len(notes) == 4 and all("Caption: 30x20 Describe." in text for text in notes)
    assert len(server.seen) == 4 * (1 + 1 + 2)


def test_a_server_that_fails_leaves_the_rest_and_nothing_is_paid_twice(
    world, server, stages, run_file, capsys
):
    server.broken = True
    arguments = run_file(stages)
    assert verbalize(arguments) == 1
    assert "not complete: 4 texts left (dynamic: HTTP 500: 4)" in capsys.readouterr().err
    assert [len(record["dynamic"]) for record in records(world).values()] == [1] * 4
    assert summary(world)["left_by_reason"] == {"dynamic: HTTP 500": 4}
    left = [line for line in rejects(world) if line.get("left")]
    assert len(left) == 4 and left[0]["reason"].endswith("(answer to 'Is it broken?')")
    asked = len(server.seen)
    server.broken = False
    assert verbalize(arguments) == 0
    assert len(server.seen) - asked == 4  # the answers about what is broken
    assert len(records(world)["p0.png"]["dynamic"]) == 2


def test_a_cap_stops_the_run(world, server, stages, run_file):
    stages["captions"]["writer"]["client"]["caps"] = {"max_requests": 2}
    assert verbalize(run_file(stages)) == 1
    assert len(server.seen) == 2


def test_caps_hold_for_all_stages_together_and_over_starts(world, server, stages, run_file):
    """4 images: 4 captions, 4 requests for questions, 8 answers, by three clients."""
    client = stages["captions"]["writer"]["client"]  # one for all writers
    client["caps"] = {"max_requests": 5}
    arguments = run_file(stages)
    for _ in range(2):
        assert verbalize(arguments) == 1
        assert len(server.seen) == 5
    summary = json.loads((world / "out/summary.json").read_text())
    assert summary["spent"]["requests_sent"] == 5
    client["caps"] = {"max_requests": 12}
    assert verbalize(run_file(stages)) == 1
    assert len(server.seen) == 12
    del client["caps"]
    assert verbalize(run_file(stages)) == 0
    summary = json.loads((world / "out/summary.json").read_text())
    assert len(server.seen) == 16 == summary["spent"]["requests_sent"]
    assert (world / "out/llm/ledger.jsonl").is_file()
    assert not list((world / "out/clients").rglob("ledger*"))


def test_a_cap_of_one_stage_holds_for_the_folder(world, server, stages, run_file):
    stages["dynamic"]["asker"] = stages["captions"]["writer"]
    capped = json.loads(json.dumps(stages["captions"]["writer"]))
    capped["client"]["caps"] = {"max_requests": 3}
    stages["dynamic"]["answerer"] = capped  # of the last writer, and the first is held by it
    assert verbalize(run_file(stages)) == 1
    assert len(server.seen) == 3


def test_caps_hold_for_one_process(stages, tmp_path):
    client = {**stages["captions"]["writer"]["client"], "caps": {"max_requests": 2}}
    config = WriterConfig(type="client", client=client)
    with pytest.raises(ConfigError, match="caps hold for one process, and there are 2"):
        build_writer(config, tmp_path, device="cpu", world_size=2)
