"""How long epochs are, counted by passes over the data and by iterations."""

import itertools
from types import SimpleNamespace

from lavis.runners.counting import ByEpochs, ByIterations
from lavis.runners.resume import TrainerState
from lavis.runners.sampler import BatchSampler, Cursor


def sampler(size=10):
    return BatchSampler([size], batch_size=2)


def test_an_epoch_is_a_pass_over_the_data():
    counting = ByEpochs(SimpleNamespace(max_epoch=3), sampler())
    assert (counting.epochs, counting.schedule_epochs, counting.steps_per_epoch) == (3, 3, 5)
    state = TrainerState(Cursor(0, (4,)), step=2)  # two steps of two samples are done
    requests = list(counting.requests(state))
    assert (len(requests), counting.steps(state)) == (3, 5)
    assert requests[-1].after == Cursor(0, (10,))
    assert counting.close(requests[-1].after) == Cursor(1, (0,))
    complete = TrainerState(Cursor(1, (0,)), epoch=1, iteration=5)
    assert (counting.token(complete), counting.when(complete)) == ("0", 0)


def test_an_inner_epoch_is_so_many_batches_and_goes_on_in_the_data():
    run = SimpleNamespace(max_iters=10, iters_per_inner_epoch=4)
    counting = ByIterations(run, sampler())
    # 4 + 4 + 2 batches; the learning rate falls over the whole inner epochs
    assert (counting.epochs, counting.schedule_epochs, counting.steps_per_epoch) == (3, 2, 4)
    second = TrainerState(Cursor(0, (8,)), epoch=1, iteration=4)
    requests = list(counting.requests(second))
    assert [r.epoch for r in requests] == [0, 1, 1, 1]  # five batches are a pass
    assert counting.close(requests[-1].after) == requests[-1].after == Cursor(1, (6,))
    last = TrainerState(Cursor(1, (6,)), epoch=2, step=1, iteration=9)
    assert (counting.steps(last), len(list(counting.requests(last)))) == (2, 1)
    assert (counting.token(last), counting.when(last)) == ("1_iters=9", 9)


def test_going_on_gives_the_batches_that_were_left():
    counting = ByEpochs(SimpleNamespace(max_epoch=1), sampler(12))
    everything = list(counting.requests(TrainerState(Cursor(0, (0,)))))
    for done in range(len(everything)):
        state = TrainerState(everything[done].after, step=done + 1)
        rest = itertools.islice(everything, done + 1, None)
        assert list(counting.requests(state)) == list(rest)
