"""The quickstart's summary against hand-counted scores."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.fixture
def output(tmp_path):
    """Eight records, an accepted and a rejected one of each kind; one correct scores too low."""
    kinds = ("object", "kind", "colour", "relation")
    records = [
        {"index": f"{kind}-{reject}", "kind": kind, "reject_label": reject, "seen_colour": False}
        for kind in kinds
        for reject in (0, 1)
    ]
    scores = [0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.4, 0.6]
    rows = [
        {"instance": record["index"], "score": score}
        for record, score in zip(records, scores, strict=True)
    ]
    for split in ("test", "control"):
        write(tmp_path / "world" / f"{split}.jsonl", records)
        write(tmp_path / "result" / f"{split}_epochbest.jsonl", rows)
    return tmp_path


def run(output, *extra):
    command = [sys.executable, "-m", "projects.quickstart.reports.critic", str(output)]
    command += ["--world", str(output / "world"), *extra]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_shares_and_areas_are_those_counted_by_hand(output):
    done = run(output, "--shipped", str(output))
    assert done.returncode == 0, done.stderr
    report = json.loads((output / "quickstart.json").read_text())
    aucs = report["auc"]["tuned"]
    assert aucs["all"] == pytest.approx(15 / 16)  # of 16 pairs only 0.4 < 0.6 is wrong
    assert (aucs["object"], aucs["relation"]) == (1.0, 0.0)
    assert aucs["colour, object never asked in training"] == 1.0
    assert report["auc"]["shipped"] == aucs
    assert report["filter"] == {
        "threshold": 0.5,
        "records": 8,
        "kept": 4,
        "correct before": 0.5,
        "correct after": 0.75,
        "correct ones kept": 0.75,
    }
    assert "correct before 50.0%, after 75.0%" in done.stdout
    assert "OpenMoji" in done.stdout and "report.html" in done.stdout


def test_nothing_kept_and_kinds_of_one_label_have_no_figures(output):
    rows = [json.loads(line) for line in (output / "world" / "test.jsonl").open()]
    for row in rows:
        row["reject_label"] *= row["kind"] != "kind"  # both records of that kind are right
    for split in ("test", "control"):
        write(output / "world" / f"{split}.jsonl", rows)
    done = run(output, "--threshold", "0.95")
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    report = json.loads((output / "quickstart.json").read_text())
    assert report["auc"]["tuned"]["kind"] is None and report["auc"]["tuned"]["object"] == 1.0
    assert report["filter"] == {
        "threshold": 0.95,
        "records": 8,
        "kept": 0,
        "correct before": 5 / 8,
        "correct after": None,
        "correct ones kept": 0.0,
    }
    assert "correct before 62.5%, after -; 0.0% of the correct ones kept" in done.stdout


def test_missing_scores_name_the_command(output):
    (output / "result" / "control_epochbest.jsonl").unlink()
    done = run(output)
    assert done.returncode != 0
    assert "run scripts/quickstart first" in done.stderr


def test_the_page_credits_the_pictograms_once(output):
    page = output / "report.html"
    page.write_text("<html><body><p>kept</p></body></html>")
    run(output)
    run(output)
    text = page.read_text()
    assert text.count("CC BY-SA 4.0") == 1 and text.endswith("</body></html>")
