"""Judgements survive: torn lines, other processes, a changed mind, odd names."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.common.errors import ConfigError
from lavis.ui.label.judgements import (
    Judgement,
    JudgementFile,
    JudgementStore,
    content_key,
    file_name,
    known_annotators,
)


def said(key, verdict="accept", annotator="ann", **more):
    return Judgement(key=key, annotator=annotator, verdict=verdict, **more)


def test_the_last_judgement_of_a_record_counts_and_earlier_ones_stay(tmp_path):
    file = JudgementFile(tmp_path / "ann.jsonl", "ann")
    file.append(said("k1", "accept", qa_score=1.0, r_score=0.5))
    file.append(said("k2", "skip"))
    file.append(said("k1", "reject", qa_score=0.0))
    again = JudgementFile(tmp_path / "ann.jsonl", "ann").latest()
    assert again == file.latest()
    assert again["k1"] == said("k1", "reject", qa_score=0.0)
    assert [j.verdict for j in again.values()] == ["reject", "skip"]
    assert (tmp_path / "ann.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_line_loses_itself_only(tmp_path, cut):
    path = tmp_path / "ann.jsonl"
    file = JudgementFile(path, "ann")
    file.append(said("k1"))
    file.append(said("k2"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    again = JudgementFile(path, "ann")
    assert set(again.latest()) == {"k1"}
    again.append(said("k3"))
    fresh = JudgementFile(path, "ann")
    expected = (
        {"k1", "k2", "k3"} if cut == 1 else {"k1", "k3"}
    )  # cut 1: only the line's end is lost
    assert set(fresh.latest()) == expected == set(again.latest())
    assert fresh.damaged == (0 if cut == 1 else 1)


def test_lines_of_others_and_of_wrong_values_are_passed_over(tmp_path):
    path = tmp_path / "ann.jsonl"
    path.write_text(
        '{"key": "a", "annotator": "bo", "verdict": "accept"}\n'
        '{"key": "b", "annotator": "ann", "verdict": "maybe"}\n'
        '{"key": "c", "annotator": "ann", "verdict": "accept", "qa_score": "high"}\n'
        '{"key": "d", "annotator": "ann", "verdict": "accept", "qa_score": NaN}\n'
        '{"key": "e", "annotator": "ann", "verdict": "accept", "later_field": 1}\n[]\n'
    )
    file = JudgementFile(path, "ann")
    assert set(file.latest()) == {"e"} and file.damaged == 5


def _write_many(path, start):
    file = JudgementFile(path, "ann")
    for number in range(start, start + 20):
        file.append(said(f"k{number}"))


def test_two_processes_of_one_annotator_lose_nothing(tmp_path):
    path = tmp_path / "ann.jsonl"
    reader = JudgementFile(path, "ann")
    reader.append(said("first"))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(path, start)) for start in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(reader.latest()) == {"first", *(f"k{i}" for i in range(40))}
    assert reader.damaged == 0


def test_what_was_appended_survives_a_kill(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from lavis.ui.label.judgements import Judgement, JudgementFile\n"
        "file = JudgementFile(Path(sys.argv[1]), 'ann')\n"
        "for number in range(10**6):\n"
        "    file.append(Judgement(key=str(number), annotator='ann', verdict='accept'))\n"
        "    print(number, flush=True)\n"
    )
    path = tmp_path / "ann.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    while int(process.stdout.readline()) < 25:
        time.sleep(0)
    os.kill(process.pid, signal.SIGKILL)
    told = [int(line) for line in process.stdout if line.strip().isdigit()]
    process.wait()
    kept = JudgementFile(path, "ann").latest()
    assert {str(n) for n in range(max(told, default=25) + 1)} <= set(kept)


def test_appends_are_synced(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(number))
    file = JudgementFile(tmp_path / "x" / "ann.jsonl", "ann")
    file.append(said("k1"))
    assert len(synced) == 2  # the line, and the new file's name
    file.append(said("k2"))
    assert len(synced) == 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(min_size=1), min_size=2, max_size=6, unique=True))
def test_file_names_are_plain_and_distinct(names):
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(files)
    assert all(set(f) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")
               and not f.startswith(".") for f in files)  # fmt: skip


def test_a_store_knows_its_annotators(tmp_path):
    store = JudgementStore(tmp_path, ["ann", "../bo"])
    store.file("../bo").append(said("k", annotator="../bo"))
    store.file("ann").append(said("k", "skip"))
    assert known_annotators(tmp_path) == ["../bo", "ann"]
    assert {p.parent for p in tmp_path.rglob("*.jsonl")} == {tmp_path}
    assert {name: list(j) for name, j in store.labels().items()} == {"ann": [], "../bo": ["k"]}
    with pytest.raises(ConfigError, match="no annotator 'cy'; there are: ann"):
        store.file("cy")
    with pytest.raises(ConfigError, match="belongs to ann"):
        store.file("ann").append(said("k", annotator="bo"))


@pytest.mark.parametrize("names", [[], [""], ["a", " a"], ["a", ""]])
def test_names_must_be_distinct(tmp_path, names):
    with pytest.raises(ConfigError, match="write distinct names"):
        JudgementStore(tmp_path, names)


def test_scores_and_verdicts_are_checked():
    with pytest.raises(ConfigError, match=r"qa_score is 1.5; use a number from 0 to 1"):
        said("k", qa_score=1.5)
    with pytest.raises(ConfigError, match="use accept, reject, unsure or skip"):
        said("k", "perhaps")


def test_a_key_is_what_a_person_judges(world):
    key = content_key(world.record())
    assert key == content_key(world.record(prediction=0.4, label=["accept"], source="x"))
    moved = world.record()["references"]
    moved[1] = {**moved[1], "boxes": [[9, 9, 20, 20]]}  # region 2, which is not drawn
    assert key == content_key(world.record(references=moved))
    moved[2] = {**moved[2], "boxes": [[9, 9, 20, 20]]}
    changed = [
        {"references": moved}, {"region": [1, 3]}, {"answer": ["other"]}, {"image": "b.png"},
        {"index": "other"},
    ]  # fmt: skip
    assert key not in [content_key(world.record(**change)) for change in changed]


def test_files_of_earlier_versions_are_read_and_plain_lines_stay_as_they_were(tmp_path):
    store = JudgementStore(tmp_path, ["ann"])
    path = store.file("ann").path
    old = (
        '{"key": "a", "annotator": "ann", "verdict": "accept", "qa_score": 1.0, "r_score": 0.5, '
        '"seconds": 2.5, "time": "2025-01-01T00:00:00+00:00", "instance": "i"}\n'
        '{"key": "b", "annotator": "ann", "verdict": "skip", "time": "", "instance": ""}\n'
    )
    path.write_text(old)
    found = store.file("ann").latest()
    assert (found["a"].verdict, found["a"].comment, found["a"].row) == ("accept", "", None)
    assert found["b"].verdict == "skip" and store.file("ann").damaged == 0
    store.file("ann").append(found["a"])
    assert path.read_text() == old + old.splitlines(keepends=True)[0]
    with open(path, "a") as file:
        file.write('{"key": "c", "annotator": "ann", "verdict": "accept", "comment": 5}\n')
    assert "c" not in store.file("ann").latest() and store.file("ann").damaged == 1
