"""Captions become tokens, labels and text states in loader processes, not between two steps."""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lavis.datasets.base import TrainingView
from lavis.runners.loader import TrainBatches, make_loader
from lavis.runners.sampler import BatchRequest, Cursor
from lavis.tasks.language_modeling.config import LanguageModelingConfig
from lavis.tasks.language_modeling.task import VisualLanguageModelingTask


def load(name):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


captions, made = load("test_task"), load("caption_run")
START = Cursor(0, ())
REQUESTS = [
    BatchRequest(epoch, 0, indices, START)
    for epoch, indices in ((0, (0, 1, 2)), (0, (3, 4)), (1, (0, 1, 2)))
]


class Loaded(VisualLanguageModelingTask):
    """Notes which process makes a batch."""

    def prepare_batch(self, samples, generator=None):
        return {**super().prepare_batch(samples, generator), "process": os.getpid()}


@pytest.fixture(params=["bert", "llama"])
def world(request, tmp_path):
    model = made.make_model(tmp_path, request.param).eval()
    task = Loaded(LanguageModelingConfig(tokenizer=str(tmp_path / request.param)))
    data = captions.Captions(6)
    run = SimpleNamespace(seed=3, cache_features=True, amp=False, batch_size_eval=4)
    task.prepare_training(
        model, [data], epoch=0, run=run, world=captions.World(), folder=tmp_path,
        autocast=nullcontext,
    )  # fmt: skip
    return SimpleNamespace(model=model, task=task, data=data)


def batches(world, num_workers, requests=REQUESTS, seed=3):
    view = TrainingView(world.data, seed)
    loader = make_loader(
        TrainBatches([view], world.task.prepare_batch),
        requests,
        num_workers=num_workers,
        device=torch.device("cpu"),
    )
    return [batch.samples for batch in loader]


def test_loader_processes_make_what_the_step_needs(world, monkeypatch):
    here, there = batches(world, 0), batches(world, 2)
    names = {"input_ids", "attention_mask", "labels"}
    names |= set() if world.model.fills_masks else {"text_hidden"}
    for one, other in zip(here, there, strict=True):
        assert one["process"] == os.getpid() != other["process"]
        for name in names:  # hidden tokens, too, are the same ones
            assert torch.equal(one[name], other[name]), name
    expected = [world.task.train_step(world.model, batch)["loss"] for batch in here]
    for name in ("tokens", "batch", "mask"):
        refuse = lambda *args, **kwargs: pytest.fail("made in the step")  # noqa: E731
        monkeypatch.setattr(world.task.texts, name, refuse)
    if world.task._states is not None:
        monkeypatch.setattr(world.task._states, "batch", refuse)
    losses = [world.task.train_step(world.model, batch)["loss"] for batch in there]
    assert torch.equal(torch.stack(losses), torch.stack(expected))


def test_a_batch_is_the_same_whenever_it_is_loaded_and_another_in_another_epoch(world):
    first, _, third = batches(world, 0)
    torch.rand(7)  # other draws in between
    (again,) = batches(world, 0, REQUESTS[2:])
    assert torch.equal(third["input_ids"], again["input_ids"])
    if world.model.fills_masks:
        many = [BatchRequest(epoch, 0, (0, 1, 2, 3), START) for epoch in range(6)]
        hidden = {tuple(b["input_ids"].flatten().tolist()) for b in batches(world, 0, many)}
        assert len(hidden) > 3
        assert {tuple(b["input_ids"].flatten().tolist()) for b in batches(world, 0, many, 4)} != (
            hidden
        )
    else:
        assert torch.equal(first["input_ids"], third["input_ids"])


def test_all_of_a_batch_is_pinned(world, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    view = TrainingView(world.data, 3)
    batch = TrainBatches([view], world.task.prepare_batch)[REQUESTS[0]].pin_memory()
    tensors = [value for value in batch.samples.values() if isinstance(value, torch.Tensor)]
    assert len(pinned) == len(tensors) >= 5
