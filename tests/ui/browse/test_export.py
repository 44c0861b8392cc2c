"""An export is the lines themselves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lavis.common.errors import DataError
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.query import Filter

ROOT = Path(__file__).parents[3]


def test_an_export_is_the_lines_themselves(corpus, world):
    _, dataset, query = corpus
    rows = query.select(Filter(text="red"))
    done = export_rows(dataset, rows, world.folder / "out" / "red.jsonl")
    lines = (world.folder / "corpus.jsonl").read_bytes().splitlines(keepends=True)
    assert done.path.read_bytes() == b"".join(lines[i] for i in rows)
    assert (done.written, done.skipped) == (len(rows), 0)
    assert [p.name for p in done.path.parent.iterdir()] == ["red.jsonl"]
    with pytest.raises(DataError, match="is part of the corpus"):
        export_rows(dataset, rows, world.folder / "corpus.jsonl")


def run(*flags):
    command = [sys.executable, str(ROOT / "scripts" / "browse.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_selection_is_exported_without_a_page(world):
    corpus = world.write([world.record(i, prediction=i / 10) for i in range(6)] + ["{torn"])
    target = world.folder / "high.jsonl"
    fixed = [corpus, "--image-root", world.root, "--cache-dir", world.folder / "cache"]
    asked = ["--words", "near -number4", "--score", "0.3", "1", "--order", "highest"]
    done = run(*fixed, "--export", target, *asked)
    assert done.returncode == 0, done.stderr
    assert "7 records, 1 of them bad {'malformed line': 1}" in done.stdout
    found = [json.loads(line)["index"] for line in target.read_text().splitlines()]
    assert found == ["test-5", "test-3"]
    refused = run(*fixed, "--export", target, "--score", "1", "0")
    assert refused.returncode == 2 and "the first number is greater" in refused.stderr
    empty = run(*fixed, "--export", target, "--words", "absent")
    assert empty.returncode == 1 and "no record was selected and read" in empty.stderr
