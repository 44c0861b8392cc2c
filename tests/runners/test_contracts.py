"""Tasks and models of the package keep to what the runners call."""

import inspect

import pytest

from lavis.models.base import BaseModel
from lavis.models.blip2.base import Blip2Base
from lavis.runners.contracts import LoadedUnit, RunnerModel, RunnerTask
from lavis.tasks.base import BaseTask, UnitBatch

OF_MODELS = [
    name for name, value in vars(RunnerModel).items() if getattr(value, "__isabstractmethod__", 0)
]


@pytest.mark.parametrize("name", [n for n in vars(RunnerTask) if not n.startswith("_")])
def test_a_task_takes_what_runners_give(name):
    ours = inspect.signature(getattr(BaseTask, name)).parameters
    theirs = inspect.signature(getattr(RunnerTask, name)).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


@pytest.mark.parametrize("name", OF_MODELS)
def test_a_model_has_what_runners_call(name):
    frozen = {"frozen_fingerprint", "encode_frozen"}  # of models whose tower may be frozen
    ours = inspect.signature(getattr(Blip2Base if name in frozen else BaseModel, name)).parameters
    theirs = inspect.signature(getattr(RunnerModel, name)).parameters
    assert len(ours) >= len(theirs) >= 1
    for parameter in list(ours.values())[len(theirs) :]:
        assert parameter.default is not parameter.empty, parameter


def test_units_have_what_runners_read():
    assert set(LoadedUnit.__annotations__) <= set(UnitBatch.__dataclass_fields__)
