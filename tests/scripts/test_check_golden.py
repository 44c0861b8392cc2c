"""The comparison with the published implementation passes on the shipped set, and can fail."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SET = ROOT / "tests" / "fixtures" / "lskd"


def run(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "scripts/check_golden.py", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_every_line_passes_on_the_shipped_set():
    done = run(SET)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, "\n".join(line for line in lines if "pass" not in line)
    assert lines[-1].endswith(" passed, 0 failed")
    parts = {line.split(".")[0] for line in lines[:-1]}
    models = {"critic", "resized_vit", "stage1"}
    assert parts == models | {"drawing", "text", "image_processor", "lr", "filter"}


def test_a_wrong_number_fails(tmp_path):
    shutil.copytree(SET / "lr", tmp_path / "lr")
    shutil.copy(SET / "config.json", tmp_path)
    path = tmp_path / "lr" / "schedules.json"
    cases = json.loads(path.read_text())
    cases[0]["rows_epoch_step_lr"][1][2] *= 1 + 1e-15
    path.write_text(json.dumps(cases))
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith("FAIL")
