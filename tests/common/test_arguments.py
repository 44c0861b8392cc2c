"""Outputs that are inputs too are refused before anything is written; counts have a least value."""

import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from lavis.common.command import at_least, check_outputs
from lavis.common.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_one_file_under_two_names_is_one(tmp_path):
    (tmp_path / "in").write_text("x")
    os.symlink("in", tmp_path / "link")
    with pytest.raises(ConfigError, match="link: is read by this command"):
        check_outputs([None, tmp_path / "link"], [tmp_path / "in"])
    with pytest.raises(ConfigError, match="would be written twice"):
        check_outputs([tmp_path / "out", tmp_path / "." / "out"])
    check_outputs([tmp_path / "a", tmp_path / "b", None], [tmp_path / "in", tmp_path / "in"])


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", ""])
def test_counts_have_a_least_value(text):
    assert at_least(1)("1") == 1
    with pytest.raises(ArgumentTypeError, match=r"expected 1 or more|not a whole number"):
        at_least(1)(text)


@pytest.mark.parametrize(
    "command",
    [
        ["validate_lck.py", "{file}", "--rejects", "{file}"],
        ["validate_lck.py", "{file}", "--rejects", "{other}", "--summary", "{other}"],
        ["make_negatives.py", "{file}", "--out", "{file}"],
        ["convert_aokvqa.py", "{file}", "--output", "{file}"],
        ["convert_aokvqa.py", "{file}", "--output", "{other}", "--rejects", "{file}"],
        ["export_corpus.py", "{file}", "--output", "{folder}"],
        ["export_corpus.py", "{file}", "--output", "{other}", "--shard-rows", "0"],
        ["export_corpus.py", "{file}", "--output", "{other}", "--threshold", "nan"],
    ],
    ids=lambda command: " ".join(command),
)
def test_no_command_writes_over_what_it_reads(tmp_path, command):
    path = tmp_path / "rejects.jsonl"
    path.write_text(json.dumps({"image": "a.png", "question": ["a"]}) + "\n")
    before = path.read_bytes()
    places = {"file": path, "other": tmp_path / "other", "folder": tmp_path}
    script, *rest = (part.format(**places) for part in command)
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", *rest],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path], done.stderr
