"""The late-fusion benchmark on tiny models: its baselines agree with ours. Times are not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(script: str, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / script), "--quick", *flags]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_answers_and_gradients_agree_with_the_baselines(tmp_path):
    found = tmp_path / "fusion.json"
    done = run("bench_fusion.py", "--json", str(found), "--threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(found.read_text())
    rows = report["evaluation"]
    assert [(row["set"], row["pictures_per"]) for row in rows] == [
        ("imagenetvc", "question"),
        ("piqa", "question"),
        ("imagenetvc", "prompt"),
        ("piqa", "prompt"),
        ("all", "question"),
        ("all", "prompt"),
    ]
    assert all(0 <= row["gap"] < 1e-4 and row["ratio"] > 0 for row in rows)
    step = report["training"]
    assert step["agree"] and set(step["ratios"]) == {"time", "memory", "cached"}
    assert done.stdout.count("agree") == 7 and "DISAGREE" not in done.stdout
