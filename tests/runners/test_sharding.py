"""Student and late fusion under `accelerate launch --use_fsdp`: as DDP, saved whole, resumed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from launching import launcher_environments
from lavis.common import cli
from lavis.common.errors import ConfigError
from lavis.runners.sharding import check_launch

HERE = Path(__file__).parent
FLAGS = "--use_fsdp --fsdp_version 2"
PROCESSES = "--num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
TEST = "run.test_splits=[val]"
KILLER = """
import os, signal
from lavis.tasks.base import BaseTask
plain, steps = BaseTask.train_step, []
def train_step(self, model, samples):
    steps.append(1)
    if len(steps) == 4:  # in the second of two epochs, between two optimizer steps
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, model, samples)
BaseTask.train_step = train_step
"""


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


student = load("student_launchers", HERE / "test_student_launchers.py")
captions = load("caption_training", HERE / "test_caption_training.py")
corpus = student.corpus


@pytest.fixture(scope="module")
def made():
    """The module that makes tiny models; children import it by its name."""
    sys.path.insert(0, str(HERE.parent / "tasks" / "language_modeling"))
    import caption_run

    yield caption_run
    sys.path.remove(str(HERE.parent / "tasks" / "language_modeling"))


def fsdp_environment(flags=FLAGS):
    """What `accelerate launch` with these flags tells its processes."""
    args = launch_command_parser().parse_args([*flags.split(), *PROCESSES.split(), "train.py"])
    told = prepare_multi_gpu_env(args)
    return {k: v for k, v in told.items() if k.startswith(("FSDP", "ACCELERATE"))}


@pytest.fixture
def train(forks, made, tmp_path):
    """Run `train.py` in two processes, with FSDP or without; returns exit statuses and logs."""

    def run(argv, env=None, *, fsdp=True):
        ranks, logs = [], [tmp_path / f"rank-{rank}" for rank in range(2)]
        for place, log in zip(launcher_environments(2), logs, strict=True):
            own = {**place, "HF_HUB_OFFLINE": "1", **(env or {})}
            own |= fsdp_environment() if fsdp else {}
            ranks.append(forks.Process(target=made.run_rank, args=(argv, own, str(log))))
            ranks[-1].start()
        for rank in ranks:
            rank.join(120)
            rank.kill()
            rank.join()
        text = "\n".join(log.read_text()[-3000:] for log in logs)
        return [rank.exitcode for rank in ranks], text

    return run


def student_run(corpus, folder, *options):
    """Arguments and environment of the shipped run file in tiny sizes."""
    environment = {**corpus, "LAVIS_OUTPUT_DIR": str(folder)}
    few = ["run.max_iters=4", "run.accum_grad_iters=2", "run.max_grad_norm=1", "run.log_freq=1"]
    keys = [*student.TINY, *few]
    argv = ["--cfg-path", student.RUN_FILE, "--options", *keys, *options]
    return argv, environment


def rows(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def weights(folder, name="checkpoint_last"):
    return load_file(folder / name / "model.safetensors")


def optimizer_state(folder):
    return torch.load(folder / "checkpoint_last/training_state.pt", weights_only=True)["optimizer"]


def assert_close(ours, theirs, atol=2e-5):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=atol, rtol=1e-4, msg=name)


def assert_same_numbers(ours, theirs):
    """Losses, norms and metrics agree."""
    for kind in ("train", "evaluate"):
        pairs = list(zip(rows(ours, kind), rows(theirs, kind), strict=True))
        assert len(pairs) > 1
        for our, their in pairs:
            numbers = {k: v for k, v in their.items() if isinstance(v, float) and k != "time"}
            assert {k: our[k] for k in numbers} == pytest.approx(numbers, abs=1e-4)


def test_the_student_trains_as_under_ddp_is_saved_whole_and_resumes(
    train, corpus, tmp_path, monkeypatch
):
    monkeypatch.chdir(student.ROOT)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "killer.py").write_text(KILLER)
    found = {}
    for name, fsdp in (("ddp", False), ("fsdp", True)):
        codes, log = train(*student_run(corpus, tmp_path / name), fsdp=fsdp)
        assert codes == [0, 0], log
        found[name] = tmp_path / name / student.RUN_OUTPUT
    ddp, fsdp = found.values()
    assert "FSDP splits 4 layers over 2 processes" in (fsdp / "run.log").read_text()
    assert "FSDP" not in (ddp / "run.log").read_text()
    assert_same_numbers(fsdp, ddp)
    assert_close(weights(fsdp), weights(ddp))
    assert_close(weights(fsdp, "checkpoint_best"), weights(ddp, "checkpoint_best"))
    states = [optimizer_state(folder)["state"] for folder in (fsdp, ddp)]
    assert states[0].keys() == states[1].keys()
    for number, state in states[0].items():
        assert_close(state, states[1][number])

    killed = tmp_path / "killed" / student.RUN_OUTPUT
    argv, environment = student_run(corpus, tmp_path / "killed", "run.import_modules=[killer]")
    environment["PYTHONPATH"] = str(tmp_path)
    codes, log = train(argv, environment)
    assert codes == [-9, -9], log
    assert rows(killed, "train")[-1]["iteration"] == 3
    codes, log = train(*student_run(corpus, tmp_path / "killed"))
    assert codes == [0, 0] and "resumed" in (killed / "run.log").read_text(), log
    assert_close(weights(killed), weights(fsdp), atol=0)

    for name in ("UNIFIED_IMAGE_DIR", "UNIFIED_ANNOT", "UNIFIED_INPUT"):
        monkeypatch.setenv(name, corpus[name])
    monkeypatch.setenv("LAVIS_OUTPUT_DIR", str(tmp_path / "alone"))
    best = json.loads((fsdp / "checkpoint_best/trainer_state.json").read_text())["best"]
    path = f"run.resume_ckpt_path={fsdp / 'checkpoint_best/model.safetensors'}"
    assert cli.run_front_end("", "evaluate", student_run(corpus, tmp_path, path, TEST)[0]) == 0
    (alone,) = rows(tmp_path / "alone" / student.RUN_OUTPUT, "evaluate")
    assert alone["agg_metrics"] == pytest.approx(best["metric"])


def test_late_fusion_splits_the_frozen_model_and_trains_as_under_ddp(
    train, made, tmp_path, monkeypatch
):
    monkeypatch.chdir(student.ROOT)
    captions.make_world(made, tmp_path, tie_word_embeddings=True)
    for name, fsdp, more in (
        ("ddp", False, []),
        ("cached", True, []),
        ("plain", True, ["run.cache_features=false"]),
    ):
        keys = ["run.batch_size_train=2", "run.log_freq=1", "run.max_grad_norm=1", *more]
        argv = captions.captioned(tmp_path, tmp_path / name, *keys)
        codes, log = train(argv, fsdp=fsdp)
        assert codes == [0, 0], log
    assert "FSDP splits 5 layers" in (tmp_path / "plain" / "run.log").read_text()
    for name in ("cached", "plain"):
        assert_same_numbers(tmp_path / name, tmp_path / "ddp")
        assert_close(weights(tmp_path / name), weights(tmp_path / "ddp"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--use_fsdp", "add --fsdp_version 2"),
        ("--use_fsdp --fsdp_version 2 --fsdp_offload_params true", "fsdp_offload_params does not"),
        (
            "--use_fsdp --fsdp_version 2 --fsdp_activation_checkpointing true",
            r"set model\.use_grad_checkpoint=true",
        ),
    ],
)
def test_kinds_that_do_not_work_are_refused(monkeypatch, flags, message):
    told = fsdp_environment(flags)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with pytest.raises(ConfigError, match=message):
        check_launch()


def test_without_other_processes_it_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="accelerate launch --use_fsdp --fsdp_version 2"):
        check_launch()
