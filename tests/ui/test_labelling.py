"""What the labelling page does, without the page."""

import pytest

from lavis.common.errors import ConfigError
from lavis.ui import markup
from lavis.ui.judgements import JudgementStore
from lavis.ui.label_queue import LabelQueue, read_items
from lavis.ui.labelling import LabelDesk, scale_of
from lavis.ui.shown import RecordViewer


def make_desk(world, records, names=("ann", "bo"), **options):
    dataset = world.open(records)
    queue = LabelQueue(read_items(dataset).items, names, seed=None)
    store = JudgementStore(world.folder / "judgements", names)
    return LabelDesk(RecordViewer(dataset), queue, store, **options)


@pytest.fixture
def desk(world):
    return make_desk(world, [world.record(0), world.record(1), world.record(2, rationale=...)])


def test_two_people_go_through_their_own_queues(desk):
    view = desk.start("ann")
    assert (view.item.index, view.place, view.progress.total) == (0, 1, 3)
    view = desk.judge("ann", view.item.key, "accept", qa_score=1.0, r_score=0.5, seconds=2.26)
    assert (view.item.index, view.progress.done) == (1, 1)
    other = desk.start("bo")
    assert (other.item.index, other.progress.done) == (0, 0)
    view = desk.skip("ann", view.item.key)
    assert (view.item.index, view.progress.skipped) == (2, 1)
    view = desk.judge("ann", view.item.key, "reject", qa_score=0.0)  # there is no rationale
    assert view.item is None and view.progress.share == 1
    assert "All done, ann." in markup.label_picture(view)
    said = list(desk.store.judged()["ann"].values())
    assert [(j.verdict, j.qa_score, j.r_score, j.seconds, j.instance) for j in said] == [
        ("accept", 1.0, 0.5, 2.3, "test-0"),
        ("reject", 0.0, None, None, "test-2"),
    ]
    assert desk.store.judged()["bo"] == {}


def test_a_mind_can_be_changed(desk):
    first = desk.start("ann").item.key
    view = desk.judge("ann", first, "accept", qa_score=1.0, r_score=1.0)
    view = desk.back("ann", view.item.key)
    assert (view.item.key, view.earlier.verdict) == (first, "accept")
    assert "You said <b>accept</b> before" in markup.label_text(view)
    view = desk.judge("ann", first, "reject", qa_score=0.0, r_score=0.0)
    assert view.item.index == 1 and view.progress.done == 1
    assert desk.store.judged()["ann"][first].verdict == "reject"
    assert desk.back("ann", first).message == "This is the first record."


def test_a_restart_goes_on(world):
    records = [world.record(i) for i in range(3)]
    view = make_desk(world, records).start("ann")
    make_desk(world, records).judge("ann", view.item.key, "accept", qa_score=1.0, r_score=1.0)
    again = make_desk(world, records[::-1])  # even in another order
    assert again.start("ann").progress.done == 1
    assert again.start("ann").item.instance == "test-2"


def test_what_lacks_is_asked_for_and_nothing_is_saved(desk):
    key = desk.start("ann").item.key
    for given, message in [
        ((None, None, None), "choose accept or reject"),
        (("accept", None, 1.0), "rate question and answer"),
        (("accept", 1.0, None), "rate the rationale"),
    ]:
        verdict, qa, r = given
        view = desk.judge("ann", key, verdict, qa_score=qa, r_score=r)
        assert view.message == f"Not saved yet: {message}." and view.item.key == key
    assert desk.store.judged()["ann"] == {}
    with pytest.raises(ConfigError, match=r"score 0.7; use one of \(0.0, 0.5, 1.0\)"):
        desk.judge("ann", key, "accept", qa_score=0.7, r_score=1.0)


def test_scores_can_be_left_out(world):
    desk = make_desk(world, [world.record()], need_scores=False)
    view = desk.judge("ann", desk.start("ann").item.key, "accept")
    assert view.item is None and view.progress.done == 1


def test_strangers_are_refused(desk):
    with pytest.raises(ConfigError, match="no annotator 'cy'"):
        desk.start("cy")
    with pytest.raises(ConfigError, match="is not in the queue of ann"):
        desk.judge("ann", "ffff", "accept", qa_score=1.0, r_score=1.0)


def test_scales():
    assert scale_of(2) == (0.0, 1.0) and scale_of(4) == (0.0, 0.3333, 0.6667, 1.0)
    with pytest.raises(ConfigError, match="--steps 6: use 2 to 5"):
        scale_of(6)
