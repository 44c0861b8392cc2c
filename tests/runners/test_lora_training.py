"""Adapters of a vision-language model trained by the shipped run file: killed, resumed, split."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_vlm import make_vlm

from launching import launcher_environments
from lavis.integrations.regions import RegionModel

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RUN_FILE = ROOT / "lavis/projects/vlm/train/lora_student.yaml"
NODE = "datasets.unified_vqa_chatgpt"
KILLER = """
import os, signal
from lavis.tasks.base import BaseTask
plain, steps = BaseTask.train_step, []
def train_step(self, model, samples):
    steps.append(1)
    if len(steps) == 6:  # behind the save of the first two updates, inside a group of batches
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, model, samples)
BaseTask.train_step = train_step
"""


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documented = load("documented_training", HERE / "test_documented_training.py")
sharding = load("sharding_runs", HERE / "test_sharding.py")
made = sharding.made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight records with images, and a tiny model."""
    folder = tmp_path_factory.mktemp("lora")
    documented.write_records(folder)
    make_vlm("qwen2_5_vl", folder / "vlm")
    return folder


@pytest.fixture
def train(forks, made, data, tmp_path, monkeypatch):
    """Run `train.py` on the run file in one process or two; returns exit statuses and logs."""
    (tmp_path / "killer.py").write_text(KILLER)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(folder, *options, size=1, fsdp=False):
        argv = ["--cfg-path", str(RUN_FILE), "--options", *run_options(data, folder), *options]
        env = {
            "UNIFIED_IMAGE_DIR": str(data), "UNIFIED_ANNOT": str(data), "HF_HUB_OFFLINE": "1",
            "LAVIS_OUTPUT_DIR": str(folder),
            **(sharding.fsdp_environment() if fsdp else {}),
        }  # fmt: skip
        ranks, logs = [], [tmp_path / f"rank-{rank}" for rank in range(size)]
        for place, log in zip(launcher_environments(size), logs, strict=True):
            told = (argv, {**env, **place}, str(log))
            ranks.append(forks.Process(target=made.run_rank, args=told))
            ranks[-1].start()
        for rank in ranks:
            rank.join(150)
            rank.kill()
            rank.join()
        text = "\n".join(log.read_text()[-3000:] for log in logs)
        return [rank.exitcode for rank in ranks], text

    return run


def run_options(data, folder):
    build = f"{NODE}.build_info"
    source = f"{{storage: [{data / 'records.jsonl'}], region_mapping: {data / 'regions.jsonl'}}}"
    return [
        f"run.output_dir={folder}", f"model.name={data / 'vlm'}", "model.max_pixels=10000",
        *(f"{build}.annotations.{split}={source}" for split in ("train", "val")),
        f"{build}.csv.storage={data}", "run.device=cpu", "run.num_workers=0", "run.max_len=6",
        "run.max_iters=8", "run.iters_per_inner_epoch=8", "run.batch_size_train=2",
        "run.init_lr=1e-2", "run.save_every_steps=1", "run.log_freq=1", "run.warmup_steps=1",
    ]  # fmt: skip


def weights(folder, name="checkpoint_last"):
    return load_file(folder / name / "model.safetensors")


def test_a_run_killed_and_resumed_ends_in_equal_weights_and_answers(train, data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    codes, log = train(whole)
    assert codes == [0], log
    ours = weights(whole)
    assert ours and all("lora_" in name and value.dtype == torch.float32 for name, value in
                        ours.items())  # fmt: skip
    assert any(value.any() for name, value in ours.items() if "lora_B" in name)

    codes, log = train(killed, "run.import_modules=[killer]")
    assert codes == [-9], log
    state = json.loads((killed / "checkpoint_last/trainer_state.json").read_text())
    assert state["updates"] == 2 and state["epoch"] == 0
    codes, log = train(killed)
    assert codes == [0] and "resumed" in (killed / "run.log").read_text(), log
    theirs = weights(killed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())

    rows = json.loads(next((whole / "result").glob("val_epoch*.json")).read_text())
    assert len(rows) == 8 and all(row["tokens"] > 1 and "answer" in row for row in rows)
    reader = RegionModel.from_run(whole)
    image = documented.Image.open(data / "0.png")
    answer = reader.answer(image, [[4, 4, 30, 28]], "What is [0] ?", max_length=6, num_beams=1)
    assert answer == rows[0]["answer"]


def test_two_processes_train_the_same_split_by_fsdp_or_not(train, tmp_path):
    plain, split = tmp_path / "ddp", tmp_path / "fsdp"
    options = ["model.lora.dropout=0"]
    for folder, fsdp in ((plain, False), (split, True)):
        codes, log = train(folder, *options, size=2, fsdp=fsdp)
        assert codes == [0, 0], log
    assert "FSDP splits 4 layers over 2 processes" in (split / "run.log").read_text()
    assert "find_unused_parameters" not in log
    sharding.assert_close(weights(split), weights(plain))
    sharding.assert_close(weights(split, "checkpoint_best"), weights(plain, "checkpoint_best"))
