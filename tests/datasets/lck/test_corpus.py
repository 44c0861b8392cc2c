"""The check of a corpus without a model: rejects, counts, and its script."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lavis.datasets.lck.corpus import CorpusChecker, CorpusSummary

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def corpus(lck, images):
    (images / "b.png").write_bytes((images / "a.png").read_bytes())
    records = [
        lck.record(0),
        lck.record(1, source="other", label=["accept"] * 3),
        lck.record(1, image="b.png", rationale=["word"] * 80),
        lck.record(2),
        lck.record(3, image="gone.png"),
        lck.record(4, region=[9]),
        lck.record(5, region=[1], references=[{"name": "1", "boxes": [[90, 2, 95, 4]]}]),
    ]
    return lck.write(images / "r.jsonl", records)


def test_counts_and_rejects(lck, images, corpus):
    dataset = lck.open(images, corpus)
    checker = CorpusChecker(dataset)
    summary = CorpusSummary()
    rejects = []
    for rows in (range(0, 3), range(3, 7)):
        part, bad = checker.check(rows)
        summary.merge(part)
        rejects += bad
    assert [(r["line"], r["index"], r["reason"].split(":")[0]) for r in rejects] == [
        (5, 4, "missing image"),
        (6, 5, "unknown region id"),
        (7, 6, "box outside the image"),
    ]
    report = summary.report()
    assert (report["rows"], report["good"], report["rejected"]) == (7, 4, 3)
    assert report["images"] == 2
    assert report["regions_per_row"] == {"2": 4}
    assert report["sources"] == {"test": 3, "other": 1}
    assert report["labels"] == {"none": 3, "accept": 1}
    assert report["duplicate_index"] == 1
    assert report["duplicate_content"] == 2  # rows 0, 1 and 3 say the same of one image
    assert report["words"]["p0"] == 15


def run_script(*arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / "validate_lck.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_script_lists_rejects_and_sums_up(images, corpus, workers):
    written = ["--summary", "s.json", "--rejects", "rejects.jsonl"]
    done = run_script(corpus, "--image-root", images, "--workers", workers, *written, cwd=images)
    assert done.returncode == 1, done.stderr
    lines = (images / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines] == [5, 6, 7]
    assert json.loads(lines[0]) == {
        "file": corpus,
        "line": 5,
        "index": 4,
        "reason": "missing image: gone.png",
    }
    report = json.loads((images / "s.json").read_text())
    assert report["cut_by_text_processor"] == 1
    assert report["words"]["p100"] == 89
    assert report["images_checked"] == "decode"
    assert "rejected                 3" in done.stdout
    assert done.stderr == ""  # a bar is for terminals


def test_the_script_writes_nothing_that_no_flag_names(images, corpus):
    before = sorted(images.iterdir())
    done = run_script(corpus, "--image-root", images, cwd=images)
    assert done.returncode == 1 and sorted(images.iterdir()) == before
    assert f"{corpus}, line 5: missing image: gone.png\n" in done.stdout
    many = images / "many.jsonl"
    many.write_text("{torn\n" * 9)
    done = run_script(many, cwd=images)
    assert done.stdout.count(", line ") == 5
    assert "... and 4 more; --rejects FILE lists them all" in done.stdout


def test_the_script_works_without_images_and_names_a_missing_file(images, corpus):
    done = run_script(corpus, "--rejects", images / "out" / "x.jsonl", cwd=images)
    assert done.returncode == 1
    assert "images_checked           none" in done.stdout
    assert len((images / "out" / "x.jsonl").read_text().splitlines()) == 1
    done = run_script("none.jsonl", cwd=images)
    assert done.returncode == 2
    assert "no such file or folder: none.jsonl" in done.stderr


def test_rows_whose_rationale_says_nothing_are_counted(lck, images):
    records = [lck.record(0, rationale=[]), lck.record(1), lck.record(2, answer=[])]
    dataset = lck.open(images, lck.write(images / "r.jsonl", records))
    first, _ = CorpusChecker(dataset).check(range(2))
    second, bad = CorpusChecker(dataset).check(range(2, 3))
    first.merge(second)
    report = first.report()
    assert (report["good"], report["empty_rationale"]) == (2, 1)
    assert bad[0]["reason"] == "empty text: answer"
