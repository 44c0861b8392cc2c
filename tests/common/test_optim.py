"""Schedules against the reference's own numbers, and layer-wise rates in the optimizer."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.common.optim import (
    LinearWarmupCosinePerStep,
    build_optimizer,
    build_schedule,
    set_lr,
)
from lavis.common.registry import lr_schedulers

GOLDEN = Path(__file__).parents[1] / "fixtures" / "lskd" / "lr" / "schedules.json"


def cases():
    return json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("case", cases(), ids=lambda c: f"{c['schedule']}-{len(c['config'])}")
def test_every_rate_of_the_reference_is_met_bit_for_bit(case):
    schedule = lr_schedulers.get(case["schedule"])(**case["config"])
    assert case["rows_epoch_step_lr"]
    for epoch, step, rate in case["rows_epoch_step_lr"]:
        assert schedule.lr(epoch, step) == rate, (epoch, step)


def run_section(**changes):
    values = dict(
        lr_sched="linear_warmup_cosine_step_lr", init_lr=1.0, min_lr=0.1, warmup_steps=4,
        warmup_lr=0.0, lr_decay_rate=None, accum_grad_iters=1,
    )  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def test_cosine_per_step_warms_up_across_epochs_and_ends_at_the_minimum():
    schedule = build_schedule(run_section(), max_epoch=5, steps_per_epoch=2)
    assert isinstance(schedule, LinearWarmupCosinePerStep)
    rates = [schedule.lr(e, s) for e in range(5) for s in range(2)]
    assert rates[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert rates[-1] == pytest.approx(0.1)
    assert schedule.lr(9, 0) == pytest.approx(0.1)  # past the end it stays there


def test_a_step_schedule_without_its_factor_is_refused():
    with pytest.raises(ConfigError, match=r"run\.lr_decay_rate: missing"):
        build_schedule(
            run_section(lr_sched="linear_warmup_step_lr"), max_epoch=2, steps_per_epoch=1
        )


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(ConfigError, match=r"run\.lr_sched.*did you mean 'constant_lr'"):
        build_schedule(run_section(lr_sched="constant_Lr"), max_epoch=2, steps_per_epoch=1)


def test_layerwise_decay_reaches_the_step():
    deep, shallow = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = [
        {"params": [deep], "weight_decay": 0.0, "lr_scale": 1.0},
        {"params": [shallow], "weight_decay": 0.0, "lr_scale": 0.5},
    ]
    optimizer = build_optimizer(groups, lr=1.0, beta2=0.98)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)
    set_lr(optimizer, 0.1)
    (deep.sum() + shallow.sum()).backward()
    optimizer.step()  # AdamW's first step has length lr
    torch.testing.assert_close(1 - deep.detach(), torch.full((2, 2), 0.1), rtol=1e-5, atol=0)
    torch.testing.assert_close(1 - shallow.detach(), torch.full((2, 2), 0.05), rtol=1e-5, atol=0)


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="every parameter is frozen"):
        build_optimizer([{"params": [], "weight_decay": 0.0}], lr=1.0, beta2=0.9)


@pytest.mark.parametrize("accumulate", (1, 3))
def test_library_schedules_end_with_the_last_optimizer_step(accumulate):
    run = run_section(
        lr_sched="linear", min_lr=0.0, warmup_steps=2, accum_grad_iters=accumulate, init_lr=0.8
    )
    steps = 5 * accumulate - (accumulate > 1)  # the last group of an epoch may be smaller
    schedule = build_schedule(run, max_epoch=2, steps_per_epoch=steps)
    rates = [schedule.lr(epoch, step) for epoch in range(2) for step in range(0, steps, accumulate)]
    # ten updates: up over two, then down over eight, 0 after the last
    assert rates == pytest.approx([0.0, 0.4, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert schedule.lr(0, accumulate - 1) == schedule.lr(0, 0)
    assert schedule.lr(2, 0) == 0


@pytest.mark.parametrize(
    "name",
    ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"),
)
def test_library_schedules_are_the_library_s(name):
    from transformers import get_scheduler

    run = run_section(lr_sched=name, min_lr=0.0, warmup_steps=3, init_lr=0.5)
    schedule = build_schedule(run, max_epoch=1, steps_per_epoch=12)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=3, num_training_steps=12)
    for step in range(12):
        assert schedule.lr(0, step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
