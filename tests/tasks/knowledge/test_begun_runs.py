"""Runs that an earlier version began go on: journals, stages and their identities stay as they are.

`begun.json` holds the folders of two runs as `make_begun` left them; see there what was asked.
"""

import base64
import io
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from chat_server import ChatServer
from generation_run import GOOD, image, items, lines, number_of
from PIL import Image

from launching import main_of

generate = main_of("scripts/generate_qar.py")
verbalize = main_of("scripts/verbalize.py")
BEGUN = Path(__file__).with_name("begun.json")
FLAGGED = (400, {"error": {"code": "content_filter", "message": "the prompt was flagged"}})
DOWN = (500, {"error": {"message": "down"}})


def client(server, folder):
    """Return the settings of a client; the server has a name that does not follow its port."""
    return {
        "backend": "openai", "model": "tiny", "base_url": server.url, "server": "there",
        "api_key_env": "LLM_TEST_KEY", "cache_dir": str(folder / "cache"), "concurrency": 1,
        "max_attempts": 1, "min_retry_wait": 0.01, "timeout": 20.0,
    }  # fmt: skip


def generation(server, folder):
    """Write data and a run file of a generation; returns the command's arguments."""
    images = [image(number) for number in range(6)]
    images[1]["region_locations"] = []  # nothing to ask about
    records = folder / "words.jsonl"
    records.write_text("".join(json.dumps(one) + "\n" for one in images))
    return write_run(folder, {
        "llm": client(server, folder),
        "generate": {"records": [str(records)], "prompts": [{"source": "s", "num_items": 2}]},
        "run": {"output_dir": str(folder / "out")},
    })  # fmt: skip


def verbalization(server, folder):
    """Likewise of a verbalization: captions, one of them ready, and questions about them."""
    (folder / "images").mkdir(exist_ok=True)
    regions = []
    for number in range(5):
        pixels = bytes((60 * number, 90, 200)) * (8 * 6)
        (folder / f"images/p{number}.ppm").write_bytes(b"P6 8 6 255\n" + pixels)
        boxes = [[1, 1, 5, 4], [2, 0, 7, 6]][: number % 3]
        regions.append({"image": f"p{number}.ppm", "boxes": boxes, "names": ["dog", "cat"]})
    (folder / "images/p4.ppm").write_bytes(b"no image")
    (folder / "regions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in regions))
    (folder / "facts.jsonl").write_text('{"image": "p0.ppm", "captions": ["ready"]}\n')
    writer = {"type": "client", "client": client(server, folder), "image_size": 30}
    return write_run(folder, {
        "images": {"root": str(folder / "images"), "regions": str(folder / "regions.jsonl")},
        "stages": {
            "sidecar": {"path": "facts.jsonl", "chunk": 2},
            "captions": {"writer": writer, "samples": 1, "prompt": "Describe.", "chunk": 1},
            "dynamic": {"asker": writer, "answerer": writer, "questions": 1, "chunk": 1},
        },
        "run": {"output_dir": str(folder / "out"), "device": "cpu", "seed": 3},
    })  # fmt: skip


def write_run(folder, sections):
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(sections))
    return ["--cfg-path", str(path)]


def color_of(body):
    """Return what a request is for and the image that its colour names; `ask` goes by notes."""
    content = body["messages"][0]["content"]
    if isinstance(content, str):
        return "ask"
    data = content[0]["image_url"]["url"].partition(",")[2]
    red = Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0))[0]
    kind = "caption" if content[1]["text"] == "Describe." else "answer"
    return f"{kind} p{round(red / 60)}"


def flawed_items(body, n):
    """Answer as `begun.json` was made by: 0 is good, 5 after a repair, the others are not."""
    number = number_of(body)
    if number == 0:
        return items(GOOD)
    if number == 5 and len(body["messages"]) == 4:
        return items(GOOD, ("Why is [7] here?", *GOOD[1:]))
    return {3: FLAGGED, 4: DOWN}.get(number, "no JSON")


def flawed_words(body, n):
    name = color_of(body)
    flaws = {"caption p1": DOWN, "caption p2": FLAGGED, "caption p3": "I'm sorry, I can't help."}
    return flaws.get(name, "What is it?" if name == "ask" else "a dog runs")


def words(body, n):
    return "What is it?" if color_of(body) == "ask" else "a dog runs"


def make_begun():
    """Write `begun.json`: two starts of each run, the second of which asks for rejects anew."""
    os.environ["LLM_TEST_KEY"] = "k"
    begun = {}
    jobs = {
        "generation": (generation, generate, flawed_items),
        "verbalization": (verbalization, verbalize, flawed_words),
    }
    for name, (job, command, answer) in jobs.items():
        folder = Path(tempfile.mkdtemp())
        os.chdir(folder)  # part of a sidecar's identity is its path as written
        arguments = job(ChatServer(answer), folder)
        assert command(arguments) == 1 and command([*arguments, "--retry-rejects"]) == 1
        out = folder / "out"
        files = sorted(path for path in out.rglob("*.jsonl") if path.is_file())
        kept = [path for path in files if path.parent != out and "llm" not in path.parts]
        begun[name] = {str(path.relative_to(out)): path.read_text() for path in kept}
    BEGUN.write_text(json.dumps(begun, indent=1) + "\n")


def restore(name, folder):
    """Write the files of a begun run."""
    for path, text in json.loads(BEGUN.read_text())[name].items():
        (folder / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "out" / path).write_text(text)


@pytest.fixture
def begun(tmp_path, serve, monkeypatch):
    """Return a function that restores a run and gives its server and arguments."""

    monkeypatch.chdir(tmp_path)

    def start(name, job, answer):
        restore(name, tmp_path)
        server = serve(answer)
        return server, job(server, tmp_path)

    return start


def sent(server, name_of):
    """Return what a server was sent since this was last called."""
    bodies, server.bodies = server.bodies, []
    return dict(Counter(map(name_of, bodies)))


def test_a_begun_generation_is_continued(begun, tmp_path):
    server, arguments = begun("generation", generation, lambda body, n: items(GOOD))
    assert generate(arguments) == 0
    assert sent(server, number_of) == {3: 1, 4: 1}  # refused at another address, and left
    assert [one["index"] for one in lines(tmp_path / "out/corpus.jsonl")] == [
        "s-0",
        "s-6",
        "s-8",
        "s-10",
    ]
    kinds = {one["line"] - 1: one["kind"] for one in lines(tmp_path / "out/rejects.jsonl")}
    assert kinds == {1: "data", 2: "reply", 5: "item"}
    server.answer = lambda body, n: seeds.append(body["seed"]) or items(GOOD)
    seeds = []
    assert generate([*arguments, "--retry-rejects"]) == 0
    assert sent(server, number_of) == {2: 1} and seeds == [44]
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 5


def test_a_begun_verbalization_is_continued(begun, tmp_path):
    server, arguments = begun("verbalization", verbalization, words)
    before = sorted(path.name for path in (tmp_path / "out/stages").glob("*/*"))
    assert verbalize(arguments) == 0
    again = ("caption p1", "answer p1", "caption p2", "answer p2")  # left, or refused elsewhere
    assert sent(server, color_of) == {**dict.fromkeys(again, 1), "ask": 2}
    assert sorted(path.name for path in (tmp_path / "out/stages").glob("*/*")) == before
    assert verbalize([*arguments, "--retry-rejects"]) == 0
    told = json.loads((tmp_path / "out/summary.json").read_text())
    assert (told["captions"], told["complete"], told["rejected"]) == (5, True, 1)
