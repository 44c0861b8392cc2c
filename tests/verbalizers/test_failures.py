"""Runs whose endpoint fails: the rest goes on, and the same command asks for what is missing."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from page_checks import check_report

from launching import main_of

pytest.importorskip("openai")
verbalize = main_of("scripts/verbalize.py")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][0]["content"]
        name = self.server.named(content)
        with self.server.lock:
            self.server.sent[name] += 1
            self.server.seeds.setdefault(name, []).append(body["seed"])
        status, told = 200, self.server.answer(name, body)
        if isinstance(told, tuple):
            status, told = told
        message = {"role": "assistant", "content": told}
        reply = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
        }  # fmt: skip
        reply = told if isinstance(told, dict) else reply  # a whole completion
        data = json.dumps(reply if status == 200 else told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Answers as `answer` says: a text, or a status and a body; counts by image and question."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent, self.seeds, self.lock = Counter(), {}, threading.Lock()
        self.names = {}  # image's data URL -> p0, p1, ... in the order they were first seen
        self.answer = lambda name, body: "a dog runs"

    def named(self, content):
        """Return `caption p0`, or `ask p0` and `answer p0` of the dynamic questions."""
        if isinstance(content, str):
            return "ask"
        with self.lock:
            url = content[0]["image_url"]["url"]
            image = self.names.setdefault(url, f"p{len(self.names)}")
        return f"{'caption' if content[1]['text'] == 'Describe.' else 'answer'} {image}"

    def since(self):
        """Return what was sent since it was last asked."""
        with self.lock:
            sent, self.sent = dict(self.sent), Counter()
        return sent


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def stages(server, world):
    client = {
        "backend": "openai", "model": "m", "concurrency": 1, "max_attempts": 1, "timeout": 20,
        "base_url": f"http://127.0.0.1:{server.server_port}/v1", "min_retry_wait": 0.01,
        "cache_dir": str(world / "replies"),
    }  # fmt: skip
    writer = {"type": "client", "client": client, "image_size": 30}
    return {
        "captions": {"writer": writer, "samples": 1, "prompt": "Describe.", "chunk": 2},
        "dynamic": {
            "asker": writer, "answerer": writer, "questions": 2, "answer_prompt": "{question}",
            "chunk": 2,
        },
    }  # fmt: skip


def summary(world):
    return json.loads((world / "out/summary.json").read_text())


def lines(world, name):
    return [json.loads(line) for line in (world / "out" / name).read_text().splitlines()]


def ready(name, body):
    return "What is it?" if name == "ask" else "a dog runs"


def test_one_image_that_always_fails_is_left_and_all_else_is_made(
    world, server, stages, run_file, capsys
):
    def answer(name, body):
        return (500, {"error": "broken"}) if name == "caption p1" else ready(name, body)

    server.answer = answer
    arguments = run_file(stages)
    assert verbalize(arguments) == 1
    said = capsys.readouterr().err
    assert "not complete: 2 texts left (captions: HTTP 500: 1, dynamic: waits for: 1)" in said
    asked = {f"{what} p{n}": 1 for what in ("caption", "answer") for n in (0, 2, 3)}
    assert server.since() == {**asked, "caption p1": 1, "ask": 3}
    found = lines(world, "verbalized.jsonl")
    assert [len(record["captions"]) for record in found] == [1, 0, 1, 1]
    assert [len(record["dynamic"]) for record in found] == [1, 0, 1, 1]
    left = [line for line in lines(world, "rejects.jsonl") if line["kind"] == "left"]
    assert [(line["image"], line["stage"], line["left"]) for line in left] == [
        ("p1.png", "captions", True), ("p1.png", "dynamic", True),
    ]  # fmt: skip
    told = summary(world)
    assert (told["complete"], told["left"]) == (False, 2)
    assert told["spent"]["requests_sent"] == 10
    assert verbalize(arguments) == 1 and server.since() == {"caption p1": 1}
    server.answer = ready
    assert verbalize(arguments) == 0
    assert server.since() == {"caption p1": 1, "ask": 1, "answer p1": 1}
    told = summary(world)
    assert told["complete"] and (told["captions"], told["dynamic"]) == (4, 4)
    assert verbalize(arguments) == 0 and server.since() == {}


def test_a_refused_image_is_asked_again_where_it_is_asked_otherwise(
    world, server, stages, run_file, capsys
):
    flagged = (400, {"error": {"code": "content_filter", "message": "flagged"}})
    del stages["dynamic"]
    server.answer = lambda name, body: flagged if name == "caption p1" else "a dog runs"
    assert verbalize(run_file(stages)) == 0
    assert "complete with 3 rejects" in capsys.readouterr().err
    told = summary(world)
    assert told["complete"] and told["reasons"]["captions: content filter"] == 1
    assert told["stages"]["captions"] == {"described": 3, "endpoint": 1}
    server.since()
    server.answer = ready
    assert verbalize(run_file(stages)) == 0 and server.since() == {}
    stages["captions"]["writer"]["client"]["token_field"] = "max_completion_tokens"
    assert verbalize(run_file(stages)) == 0 and server.since() == {"caption p1": 1}
    assert summary(world)["captions"] == 4


def test_rejects_are_asked_again_where_that_is_wanted(world, server, stages, run_file):
    flagged = (400, {"error": {"code": "content_filter", "message": "flagged"}})
    del stages["dynamic"]
    server.answer = lambda name, body: flagged if name == "caption p1" else "a dog runs"
    arguments = run_file(stages)
    assert verbalize(arguments) == 0
    server.since()
    assert verbalize([*arguments, "--retry-rejects"]) == 0
    assert server.since() == {"caption p1": 1}
    server.answer = ready
    assert verbalize(arguments) == 0 and server.since() == {}
    assert verbalize([*arguments, "--retry-rejects"]) == 0
    assert server.since() == {"caption p1": 1} and summary(world)["captions"] == 4


def test_replies_of_no_use_are_asked_for_anew_under_another_seed(world, server, stages, run_file):
    stages["dynamic"]["chunk"] = 8
    first = set()

    def answer(name, body):
        if name != "ask":
            return "a dog runs"
        with server.lock:
            if len(first) < 3:  # the fourth image's seed is answered at once
                first.add(body["seed"])
        bad = body["seed"] in first or body["seed"] - 1 in first
        return "Nothing to ask." if bad else "What is it?"

    server.answer = answer
    assert verbalize(run_file(stages)) == 0
    assert summary(world)["reasons"]["dynamic: no question in the reply"] == 3
    assert server.since()["ask"] == 4 + 3  # once more in the same run
    assert verbalize(run_file(stages)) == 0 and server.since() == {}
    assert verbalize([*run_file(stages), "--retry-rejects"]) == 0
    assert server.since()["ask"] == 3
    assert sorted(server.seeds["ask"][7:]) == sorted(seed + 2 for seed in first)
    assert "dynamic: no question in the reply" not in summary(world)["reasons"]
    assert verbalize([*run_file(stages), "--retry-rejects"]) == 0 and server.since() == {}


THOUGHT = "<think>A dog, I think.</think>\n\na dog runs"


@pytest.mark.parametrize(
    ("first", "finish", "asked", "reason"),
    [
        ("a dog runs", "stop", 1, ""),
        (THOUGHT, "stop", 1, ""),
        ("so a dog it is</think>a dog runs", "stop", 1, ""),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a dog runs"}],
         "stop", 1, ""),
        ("a dog runs", "eos", 1, ""),
        # another seed may do better
        ("I'm sorry, but I can't help with that.", "stop", 2, "refusal"),
        ("A dog that runs to the left of the pict", "length", 2, "cut off"),
        ("A dog. It runs to the left of the pict", "MAX_TOKENS", 2, "cut off"),
        # it is the endpoint that says no
        ("[content removed]", "content_filter", 1, "content filter"),
        ("", "length", 1, "cut off"),
        ("<think>A dog that ru", "length", 1, "cut off"),
    ],
)  # fmt: skip
def test_a_caption_is_an_answer_or_a_reject_with_its_reason(
    world, server, stages, run_file, first, finish, asked, reason
):
    del stages["dynamic"]
    seeds, lock = {}, threading.Lock()

    def answer(name, body):
        with lock:
            old = seeds.setdefault(name, body["seed"])
        if name != "caption p1" or (old != body["seed"] and heals):
            return "a cat sits"
        return {"choices": [{"message": {"content": first}, "finish_reason": finish}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 5}}  # fmt: skip

    server.answer, heals = answer, False
    assert verbalize(run_file(stages)) == 0
    assert server.since()["caption p1"] == asked
    captions = lines(world, "verbalized.jsonl")[1].get("captions", [])
    assert captions == ([] if reason else ["a dog runs"])
    told = [key.split(": ")[1] for key in summary(world)["reasons"] if "captions" in key]
    assert told == ([reason] if reason else [])
    assert verbalize(run_file(stages)) == 0 and server.since() == {}  # nothing is paid twice
    heals = True
    shutil.rmtree(world / "out")
    assert verbalize(run_file(stages)) == 0
    # what was whole is stored; what was cut or withheld is asked for again
    sent = {"": {}, "refusal": {}}.get(reason, {"caption p1": asked})
    assert server.since() == sent


def test_a_stage_without_a_single_text_is_no_success(world, server, stages, run_file, capsys):
    flagged = (400, {"error": {"code": "content_filter", "message": "flagged"}})
    del stages["dynamic"]
    server.answer = lambda name, body: flagged
    assert verbalize(run_file(stages)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "not one image was described by stages.captions" in said and "content filter" in said
    assert not summary(world)["complete"]


def test_a_wrong_key_stops_with_a_sentence_and_nothing_is_lost(
    world, server, stages, run_file, capsys
):
    denied = (401, {"error": {"message": "Incorrect API key"}})
    server.answer = lambda name, body: denied if name == "caption p3" else ready(name, body)
    arguments = run_file(stages)
    assert verbalize(arguments) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: stages.captions: llm") and "401" in said
    told = summary(world)
    assert not told["complete"] and "401" in told["stopped_by"]
    assert told["left_of_stages"] == {"captions": 1}  # of five, one of which is broken
    server.since()
    server.answer = ready
    assert verbalize(arguments) == 0
    assert server.since() == {f"answer p{n}": 1 for n in range(4)} | {"caption p3": 1, "ask": 4}
    assert summary(world)["complete"]


def test_a_cap_stops_with_a_sentence(world, server, stages, run_file, capsys):
    stages["captions"]["writer"]["client"]["caps"] = {"max_requests": 2}
    assert verbalize(run_file(stages)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "not complete: stages.captions: max_requests (2) is reached" in said
    assert "start again with a higher cap" in said


def test_the_page_shows_images_with_what_was_said_of_them(world, server, stages, run_file):
    def answer(name, body):
        if name == "caption p1":
            return 500, {"error": "broken"}
        return "What is [0]?" if name == "ask" else "a <i>dog</i> runs"

    server.answer = answer
    assert verbalize(run_file(stages)) == 1
    page = (world / "out/report.html").read_text()
    assert "Not complete: 2 texts left for the next start." in page
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert page.count("no image: ") == 1  # that of the broken one, which was rejected
    assert "a &lt;i&gt;dog&lt;/i&gt; runs" in page and "<i>dog" not in page
    assert page.count('alt="p2.png; regions: 0 dog, 1 cat"') == 1
    assert page.count('class="lv-badge" data-region="0"') == 3
    for told in ("captions: HTTP 500", "dynamic: waits for", "images described", "requests sent"):
        assert told in page
    assert "http" not in page


def test_the_page_fits_and_can_be_read(world, server, stages, run_file, browser):
    server.answer = lambda name, body: "a dog " + "runs and " * 60 + "x" * 200
    assert verbalize(run_file(stages)) in (0, 1)
    check_report(browser, world / "out/report.html")


@pytest.mark.parametrize("status", [500, 413])
def test_a_server_that_only_fails_stops_the_run_and_a_mended_one_is_asked_for_all(
    world, server, stages, run_file, capsys, status
):
    stages["captions"]["writer"]["client"]["max_alike_failures"] = 3
    server.answer = lambda name, body: (status, {"error": {"message": "out of order"}})
    arguments = run_file(stages)
    assert verbalize(arguments) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "not complete: stages.captions: llm: 3 requests or more in a row failed alike" in said
    told = summary(world)
    assert not told["complete"] and f"HTTP {status}" in told["stopped_by"]
    server.since()
    server.answer = ready
    assert verbalize(arguments) == 0
    captions = {name: count for name, count in server.since().items() if "caption" in name}
    assert captions == {f"caption p{n}": 1 for n in range(4)}
    assert summary(world)["complete"] and summary(world)["captions"] == 4
