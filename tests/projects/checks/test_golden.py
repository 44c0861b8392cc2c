"""The comparison with the published implementations passes on the shipped sets, and can fail."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
PARTS = {
    "lskd": "critic resized_vit stage1 drawing text image_processor lr filter",
    "vlmig": "gpt2 gemma llama3 opt bert clip imagenetvc commonsense boolq squad image_prompts",
}


def check(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "scripts/check_golden.py", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def failed(done: subprocess.CompletedProcess) -> list[str]:
    return [line.split()[0] for line in done.stdout.splitlines() if line.endswith("FAIL")]


@pytest.mark.parametrize("name", PARTS)
def test_every_line_passes_on_the_shipped_set(name):
    done = check(FIXTURES / name)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, "\n".join(failed(done)) + done.stderr
    assert lines[-1].endswith(" passed, 0 failed")
    assert {line.split()[0].split(".")[0] for line in lines[:-1]} == set(PARTS[name].split())


def test_a_wrong_number_of_a_schedule_fails(tmp_path):
    shutil.copytree(FIXTURES / "lskd" / "lr", tmp_path / "lr")
    shutil.copy(FIXTURES / "lskd" / "config.json", tmp_path)
    path = tmp_path / "lr" / "schedules.json"
    cases = json.loads(path.read_text())
    cases[0]["rows_epoch_step_lr"][1][2] *= 1 + 1e-15
    path.write_text(json.dumps(cases))
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith("FAIL")


def test_a_wrong_loss_fails(tmp_path):
    shutil.copytree(FIXTURES / "vlmig" / "opt", tmp_path / "opt")
    path = tmp_path / "opt" / "golden.json"
    values = json.loads(path.read_text())
    values["b2.fused_loss"] += 0.001
    path.write_text(json.dumps(values))
    done = check(tmp_path)
    assert done.returncode == 1 and failed(done) == ["opt.b2.fused_loss"]


def test_wrong_answers_of_an_evaluation_fail(tmp_path):
    """A set of other sizes: two benchmarks only, with fewer items."""
    at = tmp_path / "eval"
    shutil.copytree(FIXTURES / "vlmig" / "eval", at)
    for name in ("imagenetvc.json", "squad.json", "image_prompts.json"):
        (at / name).unlink()
    golden = json.loads((at / "boolq.json").read_text())
    golden["items"] = golden["items"][:2]
    golden["items"][1]["text"]["p_yes"] = [0.5]
    (at / "boolq.json").write_text(json.dumps(golden))
    golden = json.loads((at / "commonsense.json").read_text())
    kept = golden["formats"]["piqa"]
    kept["items"] = kept["items"][:1]
    right = kept["items"][0]["predicted"]
    place = kept["items"][0]["label_index"]
    kept["accuracy"] = {mode: float(said == place) for mode, said in right.items()}
    right["text"] = 1 - right["text"]
    golden["formats"] = {"piqa": kept}
    (at / "commonsense.json").write_text(json.dumps(golden))
    done = check(tmp_path)
    assert done.returncode == 1
    assert failed(done) == ["commonsense.piqa.text.predicted", "boolq.text.p_yes_no"]


def test_an_error_fails_its_part_and_the_others_go_on(tmp_path):
    for part in ("lr", "text", "drawing"):
        shutil.copytree(FIXTURES / "lskd" / part, tmp_path / part)
    shutil.copy(FIXTURES / "lskd" / "config.json", tmp_path)
    cases = json.loads((tmp_path / "text" / "region_tags.json").read_text())
    del cases[1]["tokens"]
    (tmp_path / "text" / "region_tags.json").write_text(json.dumps(cases))
    (tmp_path / "drawing" / "cases.json").write_text("{")
    done = check(tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("FAIL")] == ["drawing:", "text:"]
    assert any(line.startswith("text: KeyError: 'tokens' (inputs.py:") for line in lines)
    assert lines[-1].endswith("passed, 2 failed")
    assert sum(line.startswith("lr.") and line.endswith("pass") for line in lines) > 5


def test_a_broken_family_fails_and_the_others_go_on(tmp_path):
    for family in ("opt", "bert"):
        shutil.copytree(FIXTURES / "vlmig" / family, tmp_path / family)
    (tmp_path / "bert" / "golden.json").write_text("no JSON")
    done = check(tmp_path)
    assert done.returncode == 1 and failed(done) == ["bert:"]
    assert "opt.b2.fused_loss" in done.stdout
