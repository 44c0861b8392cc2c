"""What is no corpus is refused in one sentence, before or instead of a page."""

import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCORES = '{"index": 0, "score": 0.5}\n{"index": 1, "score": 0.25}\n'


def browse(world, *flags, environment=None):
    command = [sys.executable, str(ROOT / "scripts" / "browse.py"), *map(str, flags)]
    command += ["--image-root", str(world.root), "--cache-dir", str(world.folder / "cache")]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


KINDS = {
    "picture.png": (b"\x89PNG\r\n\x1a\n....", "is an image (PNG), not a file of records"),
    "picture.jsonl": (b"\xff\xd8\xff\xe0....", "is an image (JPEG), not a file of records"),
    "binary.jsonl": (bytes(range(256)) * 3, "it holds binary data, no text"),
    "numbers.json": (b"[1, 2, 3]", "it holds JSON (int), but no objects"),
    "objects.json": (b'[{"a": 1}]', "its rows hold a, where records hold image, region"),
    "array.jsonl": (b'[{"a": 1}]\n', "it is one JSON array; name it .json"),
    "pretty.jsonl": (b'{\n "a": 1\n}\n', "no line of it is a whole JSON object"),
    "scores.jsonl": (SCORES.encode(), "its rows are scores; name the corpus itself"),
    "scores.jsonl.gz": (gzip.compress(SCORES.encode()), "its rows are scores"),
    "notes.txt": (b"hello world\n", "it holds text, but no JSON; it begins with 'hello world'"),
    "empty.jsonl": (b"", "no records in"),
    "blank.jsonl": (b"\n\n", "no records in"),
    "table.parquet": (b"PAR1 no more", "not a Parquet file"),
    "table.jsonl": (b"PAR1 no more", "is a Parquet table under another name"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_corpus_is_told_in_a_sentence(world, name):
    content, reason = KINDS[name]
    path = world.folder / name
    path.write_bytes(content)
    done = browse(world, path, "--export", world.folder / "out.jsonl")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert reason in done.stderr and str(path) in done.stderr
    assert not (world.folder / "out.jsonl").exists()


def test_a_folder_without_records_is_told(world):
    done = browse(world, world.root, "--export", world.folder / "out.jsonl")
    assert done.returncode == 2 and "no records in it" in done.stderr


def test_a_file_without_records_among_others_is_named(world):
    corpus = world.write([world.record(0), "{torn"])
    (world.folder / "scores.jsonl").write_text(SCORES)
    done = browse(
        world, corpus, world.folder / "scores.jsonl", "--export", world.folder / "o.jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert "scores.jsonl: its rows are scores" in done.stderr
    assert json.loads((world.folder / "o.jsonl").read_text())["index"] == "test-0"


@pytest.mark.parametrize("script", ["browse.py", "label_qar.py"])
def test_a_missing_extra_is_told_before_anything_is_read(world, script):
    fake = world.folder / "without" / "gradio"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ImportError('No module named gradio')")
    command = [sys.executable, str(ROOT / "scripts" / script), "no such corpus.jsonl"]
    command += ["--image-root", str(world.root), "--out", str(world.folder / "out")]
    env = {**os.environ, "PYTHONPATH": str(fake.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 2
    assert "the page needs Gradio" in done.stderr and "pip install '.[ui]'" in done.stderr


def test_a_port_that_is_taken_is_told_before_anything_is_read(world):
    pytest.importorskip("gradio")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = browse(world, "no such corpus.jsonl", "--port", other.getsockname()[1])
    assert done.returncode == 2 and "in use" in done.stderr
    assert browse(world, "none.jsonl", "--port", 99999).returncode == 2
