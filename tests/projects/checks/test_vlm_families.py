"""The table of vision-language families and their benchmark: one of each outcome, and agreement."""

import json
import os
import subprocess
import sys
from pathlib import Path

from projects.checks.vlm_families import COLUMNS, check_family, markdown

ROOT = Path(__file__).resolve().parents[3]


def test_families_that_branch_that_are_read_whole_and_that_are_refused(tmp_path):
    names = ("qwen2_5_vl", "paligemma", "llama4")
    outcomes = [check_family(name, str(tmp_path / name)) for name in names]
    branching, whole, refused = outcomes
    assert not any(one.is_fault for one in outcomes)
    assert all(branching.words[name].startswith("yes") for name in COLUMNS)
    assert whole.words["branch equal"] == "read whole" and "both directions" in whole.note
    assert refused.words == {"loads": "refused"} and "raises on every forward" in refused.note
    table = markdown(outcomes).splitlines()
    assert len(table) == 4 + 3 and table[2].startswith("| family | loads | score equal |")


def test_the_benchmark_agrees_with_plain_code(tmp_path):
    path = tmp_path / "vlm.json"
    command = [sys.executable, str(ROOT / "scripts" / "bench_vlm.py"), "--quick", "--rounds", "1"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--threads", "1", "--json", str(path)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(path.read_text())["rows"]
    assert [row["texts"] for row in rows] == [4, 16]
    assert all(row["gap"] < 1e-4 and row["ratio"] > 0 for row in rows)
