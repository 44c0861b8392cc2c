"""A run killed at any moment and started again ends as one that was never killed, bit for bit."""

import json
import os
import random
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lavis.common.errors import ConfigError, DataError
from lavis.runners import resume
from lavis.runners.sampler import Cursor

OPTIONS = dict(
    max_epoch=3, save_every_steps=2, accum_grad_iters=2, init_lr=0.05, batch_size_train=2
)


def same_state(first, second):
    """Compare weights and the whole training state of two `checkpoint_last`."""
    one, two = (load_file(f / "checkpoint_last" / resume.MODEL) for f in (first, second))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    states = [
        torch.load(f / "checkpoint_last" / resume.TENSORS, weights_only=True)
        for f in (first, second)
    ]
    moments = [s["optimizer"]["state"] for s in states]
    assert moments[0].keys() == moments[1].keys() and moments[0]
    for key in moments[0]:
        assert torch.equal(moments[0][key]["exp_avg_sq"], moments[1][key]["exp_avg_sq"])
    for one_rng, two_rng in zip(states[0]["rng"], states[1]["rng"], strict=True):
        assert torch.equal(one_rng["torch"], two_rng["torch"])


def test_one_process_killed_mid_epoch(tiny, launch, tmp_path):
    kill_at = random.SystemRandom().randrange(5, 34)  # 12 batches an epoch; the first save is at 4
    (process,) = launch(tmp_path / "killed", 1, kill_at=kill_at, **OPTIONS)
    code, err = process.wait()
    assert code == -9, (kill_at, err)
    whole = tiny.make_runner(tmp_path / "whole" / "train", **OPTIONS)
    whole.train()
    again = tiny.make_runner(tmp_path / "killed" / "train", **OPTIONS)
    again.train()
    same_state(tmp_path / "whole" / "train", tmp_path / "killed" / "train")
    assert again.task.batches < 36, f"began from nothing after {kill_at} batches"


def test_two_processes_killed_one_named_resumed_and_evaluated(tiny, launch, tmp_path):
    kill_at = random.SystemRandom().randrange(4, 17)  # 6 batches an epoch
    options = {**OPTIONS, "accum_grad_iters": 1, "timeout_minutes": 0.2}
    whole = launch(tmp_path / "whole", 2, **options)
    ended = [process.wait() for process in whole]
    assert [code for code, _ in ended] == [0, 0], ended
    killed = launch(tmp_path / "killed", 2, kill_at=kill_at, **options)
    (code, err), (other, _) = (process.wait() for process in killed)
    assert other == -9 and code not in (0, -9)
    named = (
        r"HungRankError: .*(no answer from rank 1 \(last heard at: |rank 1 has made no progress)"
    )
    assert re.search(named, err), err
    again = launch(tmp_path / "killed", 2, **options)
    ended = [process.wait() for process in again]
    assert [code for code, _ in ended] == [0, 0], ended
    logs = [log for _, log in ended]
    assert re.search(r"resumed .*iteration [1-9]", logs[0])
    same_state(tmp_path / "whole" / "train", tmp_path / "killed" / "train")
    # The evaluation that followed on two processes gives the file of a single process.
    alone = tiny.make_runner(tmp_path / "alone", test_splits=["test"])
    alone.evaluate()
    name = "result/test_epochbest.json"
    both = [tmp_path / "alone" / name, tmp_path / "whole" / "evaluate" / name]
    one, two = (json.loads(path.read_text()) for path in both)
    assert [row.get("index", "reject") for row in one] == [0, 1, 2, "reject", 4, 5, 6, 7, 8, 9]
    assert one == two


def test_a_killed_iteration_count_goes_on_at_the_same_iteration(tiny, tmp_path):
    options = dict(runner="runner_iter", max_iters=11, iters_per_inner_epoch=4, save_every_steps=1)
    tiny.make_runner(tmp_path / "whole", **options).train()
    for stop in (1, 5, 8):
        task = tiny.TinyTask(spoil_at=stop)
        with pytest.raises(RuntimeError, match=f"iteration {stop}: the loss"):
            tiny.make_runner(tmp_path / f"{stop}", task, **options).train()
        again = tiny.make_runner(tmp_path / f"{stop}", **options)
        again.train()
        assert again.task.batches == 11 - stop
        same_state(tmp_path / "whole", tmp_path / f"{stop}")


def test_another_config_in_the_same_folder_is_refused_naming_the_key(tiny, tmp_path):
    tiny.make_runner(tmp_path / "run", max_epoch=1).train()
    with pytest.raises(
        ConfigError, match=r"run\.init_lr is 0\.05 there and 0\.1 here.*resume=never"
    ):
        tiny.make_runner(tmp_path / "run", max_epoch=1, init_lr=0.1).train()
    regardless = tiny.make_runner(
        tmp_path / "more", max_epoch=2, resume_ckpt_path=str(tmp_path / "run")
    )
    regardless.train()
    assert regardless.task.batches == 6  # the second epoch only
    fresh = tiny.make_runner(tmp_path / "run", max_epoch=1, init_lr=0.1, resume="never")
    fresh.train()
    assert fresh.task.batches == 6


def test_a_finished_training_is_not_repeated(tiny, tmp_path):
    tiny.make_runner(tmp_path).train()
    again = tiny.make_runner(tmp_path)
    again.train()
    assert again.task.batches == 0


def write(folder, number):
    resume.write_folder(
        folder,
        weights={"w": torch.tensor([float(number)])},
        state=resume.TrainerState(Cursor(0, (0,)), iteration=number).to_json(identity={}),
        tensors={"rng": []},
    )


def test_a_crash_at_any_moment_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint_last"
    write(folder, 1)
    moments = 0
    while True:
        calls = {"left": moments}

        def crashing(call, calls=calls):
            def run(*args, **options):
                if calls["left"] == 0:
                    raise KeyboardInterrupt
                calls["left"] -= 1
                return call(*args, **options)

            return run

        with monkeypatch.context() as patch:
            for owner, name in (
                (os, "rename"), (os, "fsync"), (resume, "write_text"),
                (resume, "save_safetensors"), (torch, "save"), (shutil, "rmtree"),
            ):  # fmt: skip
                patch.setattr(owner, name, crashing(getattr(owner, name)))
            try:
                write(folder, 2)
                finished = True
            except KeyboardInterrupt:
                finished = False
        checkpoint = resume.read_folder(folder)
        number = checkpoint.state.iteration
        assert number in (1, 2) and checkpoint.weights["w"].item() == number
        if finished:
            break
        write(folder, 1)
        moments += 1
    assert moments >= 8 and number == 2


def test_what_cannot_be_resumed_says_why(tmp_path):
    with pytest.raises(DataError, match=r"not a folder to resume from.*model\.pretrained"):
        resume.read_folder(tmp_path)
    write(tmp_path / "checkpoint_last", 1)
    (tmp_path / "checkpoint_last" / resume.STATE).write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        resume.read_folder(tmp_path / "checkpoint_last")


def test_random_states_come_back_through_a_safe_file(tmp_path):
    import numpy as np

    torch.save(resume.rng_state(), tmp_path / "rng.pt")
    drawn = [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1)]
    resume.set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert drawn == [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(0, 1)]


def test_training_goes_on_with_the_data_it_began_with_only(tiny, tmp_path):
    def runner(bad, **run):
        data = {"tiny": {"train": tiny.TinyData(bad=bad)}}
        return tiny.make_runner(tmp_path / "out", datasets=data, **run)

    runner([], max_epoch=1).train()
    config = (tmp_path / "out/config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"data\.tiny\.train\.bad is \[\] there and \[3\] here"):
        runner([3], max_epoch=1).train()
    assert (tmp_path / "out/config.yaml").read_bytes() == config
    runner([3], max_epoch=1, resume_ckpt_path=str(tmp_path / "out/checkpoint_last")).train()
