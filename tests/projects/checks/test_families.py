"""Families of each outcome, by the checks of `scripts/check_families.py`; all of them: slow."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from projects.checks.families.checks import REFUSED, RIGHT, WRONG, Outcome, check_family

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = [
    ("causal", "llama", RIGHT, ""),
    ("causal", "mixtral", RIGHT, ""),  # experts start silent
    ("causal", "granitemoeshared", RIGHT, ""),
    ("causal", "jamba", RIGHT, "beginnings are not shared"),  # beams over running states
    ("causal", "gpt_neo", RIGHT, ""),
    ("masked", "xlm-roberta", RIGHT, ""),
    ("masked", "electra", RIGHT, ""),
    ("masked", "distilbert", RIGHT, "starts at random only"),  # its layer takes no keys
    ("causal", "bart", REFUSED, "is an encoder with a decoder"),
    ("causal", "falcon_h1", REFUSED, r"no layer of plain attention, .* \(its layers: hybrid\)"),
    ("causal", "bloom", REFUSED, "its attention counts the distance between rows for itself"),
    ("causal", "mamba", REFUSED, "no layer of plain attention|takes it under neither name"),
    ("masked", "albert", REFUSED, "words enter this 'albert' with 16 values"),
    ("masked", "deberta", REFUSED, "its attention counts the distance between rows for itself"),
]


@pytest.mark.parametrize(("kind", "model_type", "outcome", "note"), FAMILIES)
def test_families_fare_as_the_table_says(tmp_path, kind, model_type, outcome, note):
    found = check_family(kind, model_type, tmp_path)
    assert found.outcome == outcome, found.note
    assert re.search(note or "^$", found.note), found.note


def test_a_wrong_number_is_found(tmp_path, monkeypatch):
    from lavis.models.late_fusion import identity

    monkeypatch.setattr(identity, "EXPERT_OUTPUTS", ("no such weight",))
    monkeypatch.setattr(identity, "TOLERANCE", 1.0)
    found = check_family("causal", "mixtral", tmp_path)
    assert found.outcome == WRONG and "a block started as identity differs by" in found.note
    assert found.is_fault and not Outcome("causal", "x", REFUSED).is_fault


@pytest.mark.slow
def test_no_family_is_wrong_or_ends_in_a_traceback(tmp_path):
    table = tmp_path / "table.md"
    command = [sys.executable, "scripts/check_families.py", "--markdown", str(table)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "| causal | right: " in table.read_text()
