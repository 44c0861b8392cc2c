"""What a step does to the weights, which checkpoint is best, and what stops a run."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lavis.common.errors import ConfigError, DataError
from lavis.runners.guard import DivergedError


def weights(folder, which="last"):
    return load_file(folder / f"checkpoint_{which}" / "model.safetensors")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith('{"')]


def train(tiny, folder, length=24, **run):
    data = run.pop("data", None) or {"tiny": {"train": tiny.TinyData(length)}}
    runner = tiny.make_runner(folder, model=tiny.TinyModel(0.0), datasets=data, **run)
    runner.train()
    return runner


def test_two_accumulated_batches_of_four_equal_one_of_eight(tiny, tmp_path):
    common = dict(max_grad_norm=0.1, max_epoch=2, lr_sched="constant_lr")
    train(tiny, tmp_path / "one", batch_size_train=8, **common)
    train(tiny, tmp_path / "two", batch_size_train=4, accum_grad_iters=2, **common)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)
    logged = [lines(tmp_path / name / "log.txt")[0]["train_loss"] for name in ("one", "two")]
    assert logged[0] == pytest.approx(logged[1], abs=1e-5)  # the loss itself, not loss / 2


def test_leftover_batches_are_stepped_as_a_group_of_their_own(tiny, tmp_path):
    runner = train(tiny, tmp_path / "a", 12, accum_grad_iters=2, max_epoch=1)  # 3 batches
    trainer_state = json.loads((tmp_path / "a/checkpoint_last/trainer_state.json").read_text())
    assert trainer_state["updates"] == 2 and trainer_state["iteration"] == 3
    assert all(p.grad is None for p in runner.model.parameters())


def test_training_lowers_the_loss_and_logs_floats(tiny, tmp_path):
    train(tiny, tmp_path, max_epoch=8, init_lr=0.05)
    epochs = lines(tmp_path / "log.txt")
    assert [line["train_epoch"] for line in epochs] == list(range(8))
    assert epochs[-1]["train_loss"] < 0.6 * epochs[0]["train_loss"]
    assert isinstance(epochs[0]["train_lr"], float)
    assert set(weights(tmp_path)) == {f"{m}.{p}" for m in ("trunk.0", "head", "qa_head")
                                      for p in ("weight", "bias")}  # fmt: skip


def test_bf16_autocast_keeps_float32_weights(tiny, tmp_path):
    train(tiny, tmp_path, amp=True, max_epoch=1)
    assert {w.dtype for w in weights(tmp_path).values()} == {torch.float32}


def test_frozen_weights_are_saved_when_asked(tiny, tmp_path):
    train(tiny, tmp_path, save_frozen=True, max_epoch=1)
    assert "tower.weight" in weights(tmp_path)


@pytest.mark.parametrize("runner", ["runner_base", "runner_iter"])
def test_the_test_phase_uses_the_best_weights_of_any_split(tiny, tmp_path, runner):
    data = {"tiny": {"train": tiny.TinyData(), "dev": tiny.TinyData(6), "test": tiny.TinyData(4)}}
    task = tiny.TinyTask(metrics=[-0.2, -0.1, -0.3, 0.9])  # three epochs, then the test
    run = dict(valid_splits=["dev"], test_splits=["test"], max_epoch=3, runner=runner)
    if runner == "runner_iter":
        run |= dict(max_iters=9, iters_per_inner_epoch=3)
    made = tiny.make_runner(tmp_path, task, datasets=data, **run)
    assert made.train()["test"]["agg_metrics"] == 0.9
    best, last = weights(tmp_path, "best"), weights(tmp_path)
    assert not torch.equal(best["head.weight"], last["head.weight"])
    assert torch.equal(made.model.head.weight, best["head.weight"])
    names = sorted(p.name for p in (tmp_path / "result").iterdir())
    key, epochs = ("best_epoch", [0, 1, 2]) if runner == "runner_base" else ("best_iters", None)
    tokens = epochs or ["0_iters=3", "1_iters=6", "1_iters=9"]
    if runner == "runner_base":
        assert names == sorted([*(f"dev_epoch{t}.json" for t in tokens), "test_epochbest.json"])
    else:
        assert [n.rpartition("=")[2] for n in names[:3]] == ["3.json", "6.json", "9.json"]
    dev = [line for line in lines(tmp_path / "log.txt") if "dev_agg_metrics" in line]
    bests = [line[f"dev_{key}"] for line in dev]
    assert bests == ([0, 1, 1] if runner == "runner_base" else [3, 6, 6])


def test_a_loss_that_is_not_a_number_stops_before_it_spoils_the_weights(tiny, tmp_path):
    task = tiny.TinyTask(spoil_at=3)
    with pytest.raises(DivergedError, match=r"iteration 3: the loss.*run\.max_grad_norm"):
        tiny.make_runner(tmp_path, task, save_every_steps=1).train()
    state = json.loads((tmp_path / "checkpoint_last" / "trainer_state.json").read_text())
    assert state["iteration"] == 3
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())


def test_unusable_rows_are_replaced_and_told(tiny, tmp_path, caplog):
    data = {"tiny": {"train": tiny.TinyData(8, bad=[2, 3])}}
    train(tiny, tmp_path, data=data, max_epoch=2)
    assert "training without row 2 of tiny (broken on purpose)" in caplog.text
    assert caplog.text.count("training without row 3") == 1
    broken = {"tiny": {"train": tiny.TinyData(8, bad=range(8))}}
    with pytest.raises(DataError, match="cannot be used, first because: broken on purpose"):
        train(tiny, tmp_path / "broken", data=broken)


def test_loader_processes_change_nothing(tiny, tmp_path):
    train(tiny, tmp_path / "none", max_epoch=1)
    train(tiny, tmp_path / "two", max_epoch=1, num_workers=2)
    for name, weight in weights(tmp_path / "none").items():
        assert torch.equal(weight, weights(tmp_path / "two")[name])


def test_several_data_sets_with_and_without_ratios(tiny, tmp_path):
    data = {
        "a": {"train": tiny.TinyData(8, name="a")},
        "b": {"train": tiny.TinyData(16, name="b", qa=True)},  # one has labels the other lacks
    }
    once = train(tiny, tmp_path / "once", data=data, max_epoch=1)
    assert once.task.batches == 6
    total = lines(tmp_path / "once" / "log.txt")[0]
    assert total["train_loss_qa"] > 0
    only = dict(train_dataset_ratios={"a": 1.0, "b": 0.0}, max_epoch=1)
    train(tiny, tmp_path / "a", data=data, **only)
    assert "train_loss_qa" not in lines(tmp_path / "a" / "log.txt")[0]
    with pytest.raises(ConfigError, match=r"run\.train_dataset_ratios: 'c'"):
        train(tiny, tmp_path / "c", data=data, train_dataset_ratios={"a": 1.0, "c": 1.0})


def test_unknown_splits_and_fp16_on_a_cpu_are_refused(tiny, tmp_path):
    with pytest.raises(
        ConfigError, match=r"run\.train_splits: no data set has split 'trian'.*train"
    ):
        train(tiny, tmp_path / "a", train_splits=["trian"])
    with pytest.raises(ConfigError, match=r"run\.amp_dtype: fp16 trains on CUDA only"):
        train(tiny, tmp_path / "b", amp=True, amp_dtype="fp16")


def test_trackers_write_files_only_when_asked(tiny, tmp_path, monkeypatch):
    train(tiny, tmp_path / "plain", max_epoch=1)
    assert not list((tmp_path / "plain").rglob("events.out*"))
    train(tiny, tmp_path / "board", max_epoch=1, trackers=["tensorboard"])
    assert list((tmp_path / "board").rglob("events.out.tfevents*"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"run\.trackers: wandb is not installed"):
        train(tiny, tmp_path / "none", trackers=["wandb"])


def test_what_a_run_leaves_tells_how_it_was_made(tiny, tmp_path):
    runner = train(tiny, tmp_path, max_epoch=1)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["run_id"] == runner.world.run_id and environment["seed"] == 42
    assert "init_lr: 0.05" in (tmp_path / "config.yaml").read_text()
    kinds = [line["kind"] for line in lines(tmp_path / "metrics.jsonl")]
    assert kinds == ["train"] * 3 + ["train_epoch"]
