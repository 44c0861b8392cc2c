"""What every model shares: parts of a batch, groups of weights, starts that are not drawn."""

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.models.base import BaseModel, ZeroInit, freeze, group_parameters, in_parts


class Stack(BaseModel):
    """Two layers in a list, a fresh head, and a frozen table."""

    fresh_keys = ("head.",)
    unused_keys = ("old.",)
    stacks = {"layers": "model.depth"}  # noqa: RUF012

    def __init__(self):
        super().__init__(config=None)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(2))
        self.head = torch.nn.Linear(2, 1)
        self.table = torch.nn.Embedding(3, 2)
        freeze(self.table)


def state_of(model, *without):
    return {k: v for k, v in model.state_dict().items() if not k.startswith(without)}


def test_frozen_models_take_a_few_inputs_at_a_time_on_a_cpu():
    sizes = []

    def double(values):
        sizes.append(len(values))
        return 2 * values

    values, module = torch.arange(5.0), torch.nn.Identity()
    with torch.no_grad():
        assert in_parts(double, values, module=module, most=2).tolist() == [0, 2, 4, 6, 8]
    assert sizes == [2, 2, 1]
    in_parts(double, values, module=module, most=2)  # gradients need the whole batch
    assert sizes[3:] == [5]


def test_a_report_tells_fresh_from_missing_and_unused_from_unexpected():
    model = Stack()
    state = {**state_of(model, "head.", "table."), "old.a": torch.ones(1), "new.b": torch.ones(1)}
    report = model.load_state(state)
    assert report.loaded == 4 and report.missing == ("table.weight",)
    assert set(report.fresh) == {"head.weight", "head.bias"} and report.unexpected == ("new.b",)
    with pytest.raises(ConfigError, match=r"lacks 1 weights the model needs: table\.weight"):
        model.load_state(state, strict_frozen=True)


def test_another_depth_names_the_option():
    state = state_of(Stack())
    for kind in ("weight", "bias"):
        state[f"layers.2.{kind}"] = state[f"layers.0.{kind}"]
    with pytest.raises(ConfigError, match=r"3 layers of layers, .* has 2; set model\.depth=3"):
        Stack().load_state(state)


def test_vectors_are_not_decayed_and_frozen_weights_in_no_group():
    model = Stack()
    decayed, plain = model.get_optimizer_params(0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in decayed["params"]] == [2, 2, 2]
    assert [p.ndim for p in plain["params"]] == [1, 1, 1]
    assert set(model.trainable_state_dict()) == set(state_of(model, "table."))


def test_groups_keep_the_order_of_their_first_weight():
    first, second, third = (torch.nn.Parameter(torch.ones(n)) for n in (1, 2, 3))
    groups = group_parameters([(first, 0.1, 1.0), (second, 0.0, 1.0), (third, 0.1, 1.0)])
    assert [len(group["params"]) for group in groups] == [2, 1]
    assert groups[0]["params"][1] is third and groups[1]["weight_decay"] == 0.0


def test_weights_that_are_replaced_start_at_zero():
    with ZeroInit():
        layer = torch.nn.Linear(3, 3)
        drawn = torch.empty(4).normal_()
    assert not layer.weight.any() and not drawn.any()
    assert torch.nn.Linear(3, 3).weight.any()
