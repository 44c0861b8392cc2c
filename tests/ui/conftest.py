"""A small corpus with two images, opened as the pages open it, and running pages."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from lavis.ui.shown import open_corpus

ROOT = Path(__file__).parents[2]


def record(number=0, **changes):
    """Return a good record about two regions of `a.png`; a change to `...` drops the key."""
    found = {
        "image": "a.png",
        "source": "test",
        "split": "train",
        "index": f"test-{number}",
        "region": [3, 1],
        "region_all": [1, 2, 3],
        "references": [
            {"name": str(i), "boxes": [[i, i, i + 10, i + 8]], "segms": None, "obj_guess": f"o{i}"}
            for i in (1, 2, 3)
        ],
        "question": ["What", "is", [3], "?"],
        "answer": ["Near", [1], f"number{number}."],
        "rationale": ["I", "see", [3, 1], "."],
    }
    return {k: v for k, v in {**found, **changes}.items() if v is not ...}


@pytest.fixture
def world(tmp_path):
    """`root`, `record(number, **changes)`, `write(records)` -> path, `open(records)` -> data."""
    root = tmp_path / "images"
    root.mkdir()
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(root / "a.png")
    Image.new("RGB", (64, 48), (200, 30, 30)).save(root / "b.png")

    def write(records, name="corpus.jsonl"):
        path = tmp_path / name
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    def open_records(records, name="corpus.jsonl", **options):
        files = [write(records, name)]
        return open_corpus(files, str(root), cache_dir=str(tmp_path / "cache"), **options)

    return SimpleNamespace(
        root=root, folder=tmp_path, record=record, write=write, open=open_records
    )


class Server:
    """A script that serves a page; `url` once it answers."""

    def __init__(self, command, log):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.log = log
        self.url = self._wait()
        threading.Thread(target=self._drain, daemon=True).start()

    def _wait(self):
        for line in self.process.stdout:
            self.log.append(line)
            if match := re.search(r"open (http://127\.0\.0\.1:\d+)", line):
                return match[1]
        raise AssertionError("the page did not start:\n" + "".join(self.log))

    def _drain(self):
        self.log.extend(self.process.stdout)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve():
    """`serve(script, *flags)` -> running page; skips where Gradio is not installed."""
    pytest.importorskip("gradio", reason="pages need Gradio: pip install '.[ui]'")
    servers = []

    def start(script, *flags):
        command = [sys.executable, str(ROOT / "scripts" / script), *map(str, flags)]
        servers.append(Server(command, []))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
