"""CONTRIBUTING names files that are there, and its figure is the code's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(
    set(re.findall(r"`((?:lavis|scripts|tests|projects)(?:/[\w./-]*)?)(?:::\w+)?`", PAGE))
)
QUESTIONS = re.findall(r"^\| (.*\?) \| `([^`]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("path", PATHS)
def test_what_it_names_is_there(path):
    assert (ROOT / path).exists()


def test_questions_are_answered_by_one_path_each():
    assert len(QUESTIONS) >= 8 and len({path for _, path in QUESTIONS}) == len(QUESTIONS)
    assert all((ROOT / path).exists() for _, path in QUESTIONS)


def test_the_figure_is_that_of_todays_imports():
    command = [sys.executable, str(ROOT / "scripts" / "draw_walks.py")]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "  tasks --> datasets\n" in drawn and "common -->" not in drawn
    assert drawn in PAGE, "run scripts/draw_walks.py --write"
