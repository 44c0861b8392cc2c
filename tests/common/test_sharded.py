"""Weights of an unsharded module are what they are; helpers ask no other process."""

import torch
from torch import nn

from lavis.common import sharded


def test_a_launcher_says_whether_weights_are_to_be_split(monkeypatch):
    for text, wanted in (("true", True), ("1", True), ("false", False), ("", False)):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", text)
        assert sharded.is_wanted() is wanted
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert not sharded.is_wanted()


def test_a_plain_module_is_not_split():
    module = nn.Linear(2, 1)
    assert not sharded.is_sharded(module)
    assert sharded.whole(module.weight) is module.weight


def test_bytes_are_a_copy_of_the_values():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    data = sharded.as_bytes(weight)
    assert data.tobytes() == weight.detach().numpy().tobytes()
    weight.data.zero_()
    assert data.any()
