"""The first iteration whose numbers are not finite is named, on every rank."""

from types import SimpleNamespace

import pytest
import torch

from lavis.runners.guard import DivergedError, FiniteGuard


def world(size=1, others=()):
    gather = lambda value, name: [value, *others]  # noqa: E731
    return SimpleNamespace(size=size, device=torch.device("cpu"), gather=gather)


def test_one_process_is_stopped_at_once():
    guard = FiniteGuard(world())
    guard.update(3, torch.tensor(1.5))
    with pytest.raises(DivergedError, match=r"iteration 4: the loss .* lower run\.init_lr"):
        guard.update(4, torch.tensor(float("nan")))


def test_ranks_are_stopped_when_they_meet_and_the_first_iteration_is_named():
    guard = FiniteGuard(world(size=2, others=[-1]))
    for iteration, value in ((5, 1.0), (6, float("inf")), (7, float("nan")), (8, 1.0)):
        guard.update(iteration, torch.tensor(value))
    with pytest.raises(DivergedError, match="iteration 6:"):
        guard.check()
    healthy = FiniteGuard(world(size=2, others=[9]))  # another rank met one in iteration 9
    healthy.update(8, torch.tensor(0.0))
    with pytest.raises(DivergedError, match="iteration 9:"):
        healthy.check()
    FiniteGuard(world(size=2, others=[-1])).check()


def test_weights_that_are_not_finite_are_no_checkpoint():
    guard = FiniteGuard(world())
    guard.check_weights([torch.ones(2), torch.zeros(3)], 7)
    with pytest.raises(DivergedError, match="iteration 6: a weight is not a finite number"):
        guard.check_weights([torch.ones(2), torch.tensor([1.0, float("-inf")])], 7)
    with pytest.raises(DivergedError):  # a rank that holds no weights hears of the others'
        FiniteGuard(world(size=2, others=[False])).check_weights([], 7)
