"""Section `run` of a config: the runner's keys. A task's own keys are in its dataclass."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, Device, FractionBelowOne, OutputFolder
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunConfig:
    """How long, how fast and where to; names as in LAVIS run files.

    Attributes:
        output_dir: folder of the run's output, relative to the working directory; without LAVIS'
            job-id folder, so that a rerun of the same command continues what is there.
        resume: `auto` continues an unfinished training found in `output_dir`; `never` starts over.
        batch_size_train: samples per process and step.
        batch_size_eval: texts per work unit; part of the plan, so never scaled by world size.
        warmup_lr: learning rate of step 0; -1 means `init_lr`.
        amp: autocast of the training step to `amp_dtype`; trainable weights stay float32.
        amp_eval: autocast while evaluating; null means on CUDA only.
        max_grad_norm: clip the gradient's global norm; null for none, as LAVIS.
        save_every_steps: optimizer steps between saves; null saves after each (inner) epoch.
        save_frozen: also write frozen weights into checkpoints.
        timeout_minutes: a rank that does not reach a barrier in this time is reported.
        cache_features: run what is frozen once, before training: the vision tower for each distinct
            image, in late fusion also the language model for each distinct text.
        trackers: `tensorboard`, `wandb`; metrics JSON lines are always written.
        import_modules: your modules that register models, tasks or data sets.
        task: registered name of what the run computes.
        runner: `runner_base` counts epochs, `runner_iter` iterations.
        lr_sched: registered name of the learning rate's schedule.
        init_lr, min_lr: the rate after the warm-up, and the one a schedule ends at.
        warmup_steps: steps in which the rate rises from `warmup_lr` to `init_lr`.
        lr_decay_rate: factor of an epoch, for `linear_warmup_step_lr`.
        lr_layer_decay: factor on the rate of each layer of a trained tower below its last.
        weight_decay, beta2: of AdamW.
        max_epoch: epochs of `runner_base`.
        max_iters, iters_per_inner_epoch: batches of `runner_iter`; between two evaluations.
        accum_grad_iters: batches whose gradients make one optimizer step.
        num_workers: processes that load data, for each rank.
        train_dataset_ratios: data set -> relative sampling weight (null: by their sizes).
        amp_dtype: what autocast computes in.
        seed: of every random choice; the same on every rank.
        train_splits, valid_splits, test_splits: names under `build_info.annotations`.
        evaluate: train nothing, evaluate `valid_splits` and `test_splits`.
        resume_ckpt_path: a checkpoint to resume from, in place of what `output_dir` holds.
        log_freq: steps between two lines of the log.
    """

    task: str
    output_dir: OutputFolder
    runner: str = "runner_base"
    import_modules: list[str] = Field(default_factory=list)

    lr_sched: str | None = None
    init_lr: PositiveFloat | None = None
    min_lr: NonNegativeFloat = 0.0
    warmup_lr: float = -1.0
    warmup_steps: NonNegativeInt = 0
    lr_decay_rate: PositiveFloat | None = None
    lr_layer_decay: PositiveFloat = 1.0
    weight_decay: NonNegativeFloat = 0.05
    beta2: FractionBelowOne = 0.999
    max_epoch: NonNegativeInt | None = None
    max_iters: NonNegativeInt | None = None
    iters_per_inner_epoch: NonNegativeInt | None = None
    batch_size_train: PositiveInt | None = None
    batch_size_eval: PositiveInt = 32
    num_workers: NonNegativeInt = 0
    accum_grad_iters: PositiveInt = 1
    max_grad_norm: PositiveFloat | None = None
    train_dataset_ratios: dict[str, NonNegativeFloat] | None = None

    amp: bool = False
    amp_dtype: Literal["bf16", "fp16"] = "bf16"
    amp_eval: bool | None = None
    device: Device = "auto"
    timeout_minutes: PositiveFloat = 30.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42

    train_splits: list[str] = Field(default_factory=list)
    valid_splits: list[str] = Field(default_factory=list)
    test_splits: list[str] = Field(default_factory=list)
    evaluate: bool = False
    resume: Literal["auto", "never"] = "auto"
    resume_ckpt_path: str | None = None
    save_every_steps: PositiveInt | None = None
    save_frozen: bool = False
    cache_features: bool = False

    log_freq: PositiveInt = 50
    trackers: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)

    def __post_init__(self) -> None:
        if self.warmup_lr < 0 and self.warmup_lr != -1:
            raise ConfigError(
                f"warmup_lr is {self.warmup_lr:g}; use 0 or more, or -1 to start from init_lr"
            )
        for name in ("train_splits", "valid_splits", "test_splits"):
            splits = getattr(self, name)
            if len(set(splits)) != len(splits):
                raise ConfigError(f"{name} is {splits}; name each split once")

    def check_start(self) -> None:
        """Raise `ConfigError` early if a tracker's package or a checkpoint to resume is missing."""
        faults = [
            f"run.trackers: {name} is not installed; pip install 'lavis-commonsense[track]', or "
            "leave it out"
            for name in self.trackers
            if find_spec(name) is None
        ]
        checkpoint = self.resume_ckpt_path
        if checkpoint is not None and not os.path.exists(os.path.expanduser(checkpoint)):
            faults.append(
                f"run.resume_ckpt_path: no such file or folder: {checkpoint}; without it a run "
                "continues what run.output_dir holds"
            )
        if faults:
            raise ConfigError("\n".join(faults))

    def check_training(self) -> None:
        """Raise `ConfigError` naming each key that training needs and the config lacks."""
        faults = [f"run.{name}: {text}" for name, text in training_faults(vars(self))]
        if faults:
            raise ConfigError("\n".join(faults))


def training_faults(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and fault of each key of `run` that training needs and the config lacks."""
    runner = run.get("runner", "runner_base")
    needed = ["lr_sched", "init_lr", "batch_size_train"]
    by_iterations = runner == "runner_iter"
    needed += ["max_iters", "iters_per_inner_epoch"] if by_iterations else ["max_epoch"]
    for name in needed:
        value = run.get(name)
        if value is None or (isinstance(value, int) and value < 1):
            yield name, f"{value!r} found; training with {runner} needs a value"
    if not run.get("train_splits"):
        yield "train_splits", "empty; name the splits to train on, e.g. [train]"
