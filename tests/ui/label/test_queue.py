"""Everybody has a queue of their own, each record gets its number of people, and order is fixed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_items import ListedItems, read_items

from lavis.common.errors import ConfigError, DataError
from lavis.ui.label.judgements import Judgement
from lavis.ui.label.queue import LabelItem, LabelQueue
from lavis.ui.shown import RecordViewer

ITEMS = [LabelItem(i, f"k{i}", f"id{i}", True) for i in range(6)]


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 40),
    st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    st.one_of(st.none(), st.integers(0, 5)),
)
def test_every_record_gets_its_number_of_people(count, people, seed):
    names = [f"p{i}" for i in range(people[0])]
    items = [LabelItem(i, f"k{i}", "", True) for i in range(count)]
    queue = LabelQueue(ListedItems(items), names, per_item=people[1], seed=seed)
    given_to = [item.key for name in names for item in queue.queue(name)]
    assert sorted(given_to) == sorted([i.key for i in items] * people[1])
    assert all(len({i.key for i in queue.queue(n)}) == len(queue.queue(n)) for n in names)
    sizes = [len(queue.queue(name)) for name in names]
    assert max(sizes) - min(sizes) <= people[1]
    again = LabelQueue(ListedItems(items), names, per_item=people[1], seed=seed)
    assert all(again.queue(name) == queue.queue(name) for name in names)


def test_one_of_two_people_alternate_in_file_order():
    queue = LabelQueue(ListedItems(ITEMS), ["a", "b"], per_item=1, seed=None)
    assert [i.index for i in queue.queue("a")] == [0, 2, 4]
    assert [i.index for i in queue.queue("b")] == [1, 3, 5]


def test_what_follows_skips_what_is_done_and_goes_round():
    queue = LabelQueue(ListedItems(ITEMS), ["a"], seed=None)
    assert queue.following("a", {"k0", "k1"}) == ITEMS[2]
    assert queue.following("a", {"k3"}, after="k2") == ITEMS[4]
    assert queue.following("a", {"k5"}, after="k4") == ITEMS[0]
    assert queue.following("a", {i.key for i in ITEMS}) is None
    assert queue.before("a", "k3") == ITEMS[2]
    assert queue.before("a", "k0") is None
    assert queue.before("a", None) == ITEMS[5]


def test_progress_counts_only_the_queue():
    queue = LabelQueue(ListedItems(ITEMS), ["a", "b"], per_item=1, seed=None)
    judged = {
        key: Judgement(key=key, annotator="a", verdict=verdict)
        for key, verdict in [("k0", "accept"), ("k2", "skip"), ("k1", "reject"), ("gone", "accept")]
    }
    progress = queue.progress("a", judged)
    assert (progress.done, progress.skipped, progress.total) == (1, 1, 3)
    assert progress.share == pytest.approx(2 / 3)


def test_more_people_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match="--per-item 3: use 1 to 2"):
        LabelQueue(ListedItems(ITEMS), ["a", "b"], per_item=3)


def test_bad_records_and_duplicates_stay_out(world):
    records = [
        world.record(0),
        world.record(0, source="elsewhere"),  # the same content
        world.record(1, image="../secret.png"),
        world.record(2, image="missing.png"),
        "{torn",
        world.record(3, references=[]),
        world.record(4, rationale=...),
    ]
    found = read_items(world.open(records))
    assert [(i.index, i.instance, i.has_rationale) for i in found.all()] == [
        (0, "test-0", True),
        (6, "test-4", False),
    ]
    assert found.duplicates == 1
    assert [r["reason"].split(":")[0] for r in found.rejects] == [
        *("path leaves the image root", "missing image", "malformed line", "unknown region id")
    ]
    assert found.rejects[0]["line"] == 3
    with pytest.raises(DataError, match="no record can be judged; the first reason: malformed"):
        read_items(world.open(["{"], "bad.jsonl"))


def test_a_limit_draws_the_same_rows_for_a_seed(world):
    dataset = world.open([world.record(i) for i in range(30)])
    drawn = [[i.index for i in read_items(dataset, limit=5, seed=s).all()] for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(d) == 5 and d == sorted(d) for d in drawn)


def test_nothing_is_to_rate_or_show_of_an_empty_rationale(world):
    dataset = world.open([world.record(0, rationale=[])])
    assert not read_items(dataset).all()[0].has_rationale
    titles = [part.title for part in RecordViewer(dataset).show(0).parts]
    assert titles == ["Question", "Answer"]
