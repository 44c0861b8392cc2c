"""Numbers of the section `run`: what means nothing is refused, key by key."""

from __future__ import annotations

import dataclasses
import math
import typing

import pytest
from pydantic import TypeAdapter, ValidationError

from lavis.common.config.run import RunConfig

GOOD = {"task": "t", "output_dir": "o"}
# key -> values that are refused beside NaN, infinities and -7; and values that are taken
NUMBERS = {
    "init_lr": ([0, -1e-5], [1e-5, None]),
    "min_lr": ([-1e-9], [0, 1e-6]),
    "warmup_lr": ([-0.5, -2], [-1, 0, 1e-7]),
    "warmup_steps": ([-1, 1.5], [0, 5e2]),
    "lr_decay_rate": ([0], [0.9, None]),
    "lr_layer_decay": ([0], [0.95, 1]),
    "weight_decay": ([-0.01], [0, 0.05]),
    "beta2": ([1, 1.5, -0.1], [0, 0.999]),
    "max_epoch": ([-1, 0.5], [1, None]),
    "max_iters": ([-1], [1, 5e4, None]),
    "iters_per_inner_epoch": ([-1], [1, None]),
    "batch_size_train": ([0, -1, "many"], [1, None]),
    "batch_size_eval": ([0, -1], [1]),
    "num_workers": ([-1], [0, 4]),
    "accum_grad_iters": ([0, -1], [1, 8]),
    "max_grad_norm": ([0, -1], [1.0, None]),
    "train_dataset_ratios": ([{"a": -1}, {"a": math.nan}], [{"a": 0.5}, {"a": 0, "b": 1}, None]),
    "timeout_minutes": ([0, -1], [0.5]),
    "seed": ([-1, 2**63], [0, 42]),
    "save_every_steps": ([0, -1], [1, None]),
    "log_freq": ([0, -1], [1]),
}


def test_every_number_is_looked_at():
    hints = typing.get_type_hints(RunConfig)
    numbers = {
        field.name
        for field in dataclasses.fields(RunConfig)
        if "float" in str(hints[field.name]) or "int" in str(hints[field.name])
    }
    assert numbers == set(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_mean_nothing_are_refused(key):
    refused, taken = NUMBERS[key]
    for value in [*refused, math.nan, math.inf, -math.inf, -7, "nan", "abc"]:
        with pytest.raises(ValidationError) as told:
            TypeAdapter(RunConfig).validate_python({**GOOD, key: value})
        (error, *_) = told.value.errors()
        assert key in map(str, error["loc"]) or key in error["msg"], value
    for value in taken:
        TypeAdapter(RunConfig).validate_python({**GOOD, key: value})
