"""Every row once, the same on any world size, and from any position on as if never stopped."""

import itertools
import json
from collections import Counter
from dataclasses import asdict

import pytest

from lavis.common.errors import ConfigError
from lavis.runners.sampler import BatchSampler, Cursor


def sampler(sizes=(10,), **options):
    return BatchSampler(sizes, **{"batch_size": 2, "seed": 3, **options})


def test_an_epoch_has_every_row_once_and_epochs_differ():
    source = sampler()
    requests = list(itertools.islice(source.endless(source.start()), 10))
    first, second = requests[:5], requests[5:]
    rows = [[i for r in part for i in r.indices] for part in (first, second)]
    assert sorted(rows[0]) == sorted(rows[1]) == list(range(10))
    assert rows[0] != rows[1]
    assert [r.epoch for r in requests] == [0] * 5 + [1] * 5


def test_ranks_share_each_step_of_the_single_process():
    whole = sampler(batch_size=4)
    ranks = [sampler(rank=r, world_size=2) for r in range(2)]
    alone = list(whole.epoch(whole.start()))
    shared = [list(s.epoch(s.start())) for s in ranks]
    for one, zero, other in zip(alone, *shared, strict=True):
        assert one.indices[0::2] == zero.indices and one.indices[1::2] == other.indices
        assert one.after == zero.after == other.after


@pytest.mark.parametrize("options", [{}, {"ratios": [1.0, 3.0]}], ids=["once", "ratios"])
def test_going_on_from_any_position_gives_the_same_batches(options):
    source = sampler((7, 20), **options)
    requests = list(itertools.islice(source.endless(source.start()), 40))
    for stop in (1, 12, 13, 27):
        state = json.loads(json.dumps(asdict(requests[stop - 1].after)))
        again = sampler((7, 20), **options)
        rest = itertools.islice(again.endless(Cursor.from_state(state)), 40 - stop)
        assert list(rest) == requests[stop:]


def test_another_world_size_takes_the_rows_that_are_left():
    source = sampler((24,))
    first = list(itertools.islice(source.epoch(source.start()), 3))
    rest = []
    for rank in range(3):
        other = sampler((24,), rank=rank, world_size=3)
        rest += list(other.epoch(first[-1].after))
    seen = [i for r in first + rest for i in r.indices]
    assert sorted(seen) == list(range(24))


def test_rows_that_fill_no_step_are_left_out_and_small_sets_are_filled():
    source = sampler((5,))
    assert source.steps_left(source.start()) == 2
    tiny = sampler((3,), batch_size=8)
    (request,) = list(tiny.epoch(tiny.start()))
    assert Counter(request.indices).most_common()[0][1] == 3 and len(request.indices) == 8


def test_without_ratios_each_set_comes_once_and_batches_are_pure():
    source = sampler((6, 10))
    requests = list(source.epoch(source.start()))
    assert source.steps_left(source.start()) == len(requests) == 8
    for number, size in enumerate((6, 10)):
        rows = [i for r in requests if r.dataset == number for i in r.indices]
        assert sorted(rows) == list(range(size))


def test_ratios_decide_how_often_a_set_is_drawn():
    source = sampler((100, 900), ratios=[3.0, 1.0])
    requests = list(source.epoch(source.start()))
    assert len(requests) == 500
    share = sum(r.dataset == 0 for r in requests) / 500
    assert share == pytest.approx(0.75, abs=0.05)
    rows = Counter(i for r in requests if r.dataset == 0 for i in r.indices)
    assert max(rows.values()) - min(rows.values()) <= 1  # whole passes before any repeat


def test_an_empty_set_and_wrong_ratios_are_refused():
    with pytest.raises(ConfigError, match="has no rows"):
        sampler((3, 0))
    with pytest.raises(ConfigError, match=r"run\.train_dataset_ratios.*each of the 2 data sets"):
        sampler((3, 3), ratios=[1.0])
