"""The comparison with the published late fusion passes on the shipped set, and can fail."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SET = ROOT / "tests" / "fixtures" / "vlmig"


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
    families = {"gpt2", "gemma", "llama3", "opt", "bert"}
    assert families <= {line.split(".")[0] for line in lines[:-1]}


def test_a_wrong_number_fails(tmp_path):
    shutil.copytree(SET / "opt", tmp_path / "opt")
    path = tmp_path / "opt" / "golden.json"
    values = json.loads(path.read_text())
    values["b2.fused_loss"] += 0.001
    path.write_text(json.dumps(values))
    done = run(tmp_path)
    failed = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("FAIL")]
    assert done.returncode == 1 and failed == ["opt.b2.fused_loss"]
