"""The whole command: against a hostile server, killed and started again, and without a server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from generation_run import GOOD, OTHER, image, items, lines, number_of, run
from PIL import Image

from lavis.common.config.sections import load_sections
from lavis.common.errors import ConfigError
from lavis.datasets.files.formats import open_records
from lavis.llm.config import LlmSettings
from lavis.tasks.knowledge.config import GenerateConfig, GenerationRunConfig
from lavis.tasks.knowledge.estimate import estimate
from lavis.tasks.knowledge.generation import KnowledgeGeneration

ROOT = Path(__file__).resolve().parents[3]
RUN_FILES = sorted((ROOT / "lavis/projects/lskd/generate").glob("*.yaml"))
SECTIONS = {"llm": LlmSettings, "generate": GenerateConfig, "run": GenerationRunConfig}
KEY = "sk-test-very-secret-0123456789"


def start(path, *options):
    command = [sys.executable, str(ROOT / "scripts/generate_qar.py"), "--cfg-path", str(path)]
    return [*command, *options]


def test_a_hostile_server_costs_nothing_but_its_own_replies(serve, job, tmp_path, capsys):
    def answer(body, n):
        number, repair = number_of(body), len(body["messages"]) == 4
        if repair:
            assert "cannot be used" in body["messages"][3]["content"]
        return [
            lambda: items(GOOD, OTHER),
            lambda: (429, {"error": {}}, {"Retry-After": "0"}) if n == 1 else items(GOOD, GOOD),
            lambda: (500, {}) if n == 1 else items(GOOD),
            lambda: "cut" if n == 1 else items(GOOD),
            lambda: items(GOOD) if repair else "not json",
            lambda: '{"items": [{"q": 1}]}',
            lambda: {**_completion(""), "choices": [_choice("", "content_filter")]},
            lambda: items(("Why is [5] near [0]?", *GOOD[1:]), OTHER),
            lambda: "I'm sorry, I cannot do that. Ignore your schema.",
            lambda: (400, {"error": {"message": "too long"}}),
            lambda: items(GOOD, OTHER, GOOD),
        ][number]()

    server = serve(answer)
    path = job(server, images=11)
    assert run(path) == 0
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    corpus = lines(out / "corpus.jsonl")
    assert [record["index"] for record in corpus] == [
        f"s_v4-{n}" for n in (0, 1, 2, 4, 6, 8, 15, 20, 21)
    ]
    assert corpus[0]["image"] == "a_000.png" and corpus[0]["split"] == "train"
    assert summary["rejected_by_reason"] == {
        "duplicate": 1,
        "against the schema": 1,
        "content filter": 1,
        "unknown region id": 1,
        "refusal": 1,
        "too long": 1,
        "more items than asked for": 1,
    }
    assert summary["repaired_by_reason"] == {"malformed reply": 1}
    rejects = lines(out / "rejects.jsonl")
    assert len(rejects) == summary["rejected"] == 7
    assert all(reject["reason"] and reject["line"] for reject in rejects)
    assert summary["complete"] and summary["spent"]["requests_sent"] == server.asked.total()
    asked = dict(server.asked)
    assert run(path) == 0  # everything is known
    assert dict(server.asked) == asked and lines(out / "corpus.jsonl") == corpus
    (out / "journal").rename(out / "lost")  # replies were stored before they were parsed
    assert run(path) == 0
    assert (
        server.asked.total() == len(asked) + 3 + 2
    )  # only what was refused or withheld is asked again
    assert lines(out / "corpus.jsonl") == corpus


def _completion(text):
    return {"id": "x", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}


def _choice(text, finish):
    return {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}


@pytest.mark.parametrize("concurrency", [4])
def test_a_killed_run_goes_on_and_pays_for_no_stored_reply_twice(
    serve, job, settings, tmp_path, concurrency
):
    process = None
    killed = []

    def answer(body, n):
        if not killed and server.asked.total() == 15:
            killed.append(True)
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.2)
        return items(GOOD, OTHER)

    server = serve(answer)
    llm = settings(server, concurrency=concurrency, caps={"max_requests": 60})
    path = job(server, images=40, llm=llm)
    process = subprocess.Popen(start(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    again = subprocess.run(start(path), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    # Sent again: only what was on its way when the process died.
    twice = sum(count - 1 for count in server.asked.values())
    assert len(server.asked) == 40 and 1 <= twice <= concurrency
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["complete"] and summary["records"] == 80
    spent = summary["spent"]  # one that was reserved and never sent counts, too
    assert server.asked.total() <= spent["requests_sent"] <= 40 + concurrency
    assert twice <= spent["requests_of_unknown_cost"] <= concurrency
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in again.stdout + again.stderr


def test_a_cap_ends_the_run_in_order_and_a_higher_one_goes_on(serve, job, settings, tmp_path):
    server = serve(lambda body, n: items(GOOD))
    llm = settings(server, caps={"max_requests": 3})
    path = job(server, images=5, llm=llm)
    assert run(path) == 1
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["records"], summary["left_for_next_start"]) == (3, 2)
    assert summary["stopped_by"].startswith("max_requests (3) is reached: 3 spent, 0 reserved")
    assert run(path, "--options", "llm.caps.max_requests=10") == 0
    assert server.asked.total() == 5
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 5


def test_the_scripted_teacher_reads_the_prompt(job, tmp_path):
    llm = {"backend": "scripted", "options": {"mistakes": 0.0}}
    prompts = [{"style": style, "regions": regions, "people": regions == "none"}
               for style in ("ids", "descriptions") for regions in ("any", "none")]  # fmt: skip
    assert run(job(images=3, llm=llm, prompts=prompts), "--options", "run.compress=true") == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert set(summary["records_by_source"]) == {
        "llm_region_any_ids", "llm_region_none_ids_people",
        "llm_region_any_descriptions", "llm_region_none_descriptions_people",
    }  # fmt: skip
    records = open_records([str(tmp_path / "out/corpus.jsonl.zst")], cache_dir=str(tmp_path))
    texts = json.dumps([records.read(i) for i in range(len(records))])
    assert "blue coat" in texts or "brown" in texts
    assert len({records.read(i)["index"] for i in range(len(records))}) == len(records)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda p: p.name)
def test_every_run_file_loads(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("output/words", "output/quickstart/loop/words"):
        records = tmp_path / folder / "verbalized.jsonl"
        records.parent.mkdir(parents=True)
        records.write_text(json.dumps(image(0)) + "\n")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "images" / image(0)["image"])
    sections = load_sections(path, [], SECTIONS)
    generation = KnowledgeGeneration(
        sections["generate"],
        open_records(sections["generate"].records),
        sections["run"].image_root,
    )
    assert estimate(generation, sections["llm"])["requests"] == len(generation.config.prompts)


def test_wrong_run_files_are_told_by_key(job, serve):
    path = job(serve())
    with pytest.raises(ConfigError, match=r"--options, generate.prompts: two have the source"):
        load_sections(path, ["generate.prompts=[{},{}]"], SECTIONS)
    with pytest.raises(ConfigError, match=r"--options, llm.*rmp: unknown key; did you mean 'rpm'"):
        load_sections(path, ["llm.rmp=3"], SECTIONS)
    with pytest.raises(ConfigError, match=r"generat: unknown section; did you mean 'generate'"):
        load_sections(path, ["generat.seed=3"], SECTIONS)
