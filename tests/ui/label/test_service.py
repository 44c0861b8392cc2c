"""What the labelling page does, without the page."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from label_items import read_items

from lavis.common.errors import ConfigError
from lavis.ui import markup
from lavis.ui.label import queue as label_queue
from lavis.ui.label.judgements import JudgementStore
from lavis.ui.label.queue import CorpusItems, LabelQueue, read_item
from lavis.ui.label.service import LabelService, scale_of
from lavis.ui.shown import RecordViewer


def make_desk(world, records, names=("ann", "bo"), **options):
    dataset = world.open(records)
    queue = LabelQueue(read_items(dataset), names, seed=None)
    store = JudgementStore(world.folder / "judgements", names)
    return LabelService(RecordViewer(dataset), queue, store, **options)


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
    assert "All done, <bdi>ann</bdi>." in markup.render("label_picture", view=view)
    said = list(desk.store.labels()["ann"].values())
    assert [(j.verdict, j.qa_score, j.r_score, j.seconds, j.instance) for j in said] == [
        ("accept", 1.0, 0.5, 2.3, "test-0"),
        ("reject", 0.0, None, None, "test-2"),
    ]
    assert desk.store.labels()["bo"] == {}


def test_a_mind_can_be_changed(desk):
    first = desk.start("ann").item.key
    view = desk.judge("ann", first, "accept", qa_score=1.0, r_score=1.0)
    view = desk.back("ann", view.item.key)
    assert (view.item.key, view.earlier.verdict) == (first, "accept")
    assert "You said <b>accept</b> before" in markup.render("label_text", view=view, serial=0)
    view = desk.judge("ann", first, "reject", qa_score=0.0, r_score=0.0)
    assert view.item.index == 1 and view.progress.done == 1
    assert desk.store.labels()["ann"][first].verdict == "reject"
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
        ((None, None, None), "choose accept, reject or unsure"),
        (("accept", None, 1.0), "rate question and answer"),
        (("accept", 1.0, None), "rate the rationale"),
    ]:
        verdict, qa, r = given
        view = desk.judge("ann", key, verdict, qa_score=qa, r_score=r)
        assert view.message == f"Not saved yet: {message}." and view.item.key == key
    assert desk.store.labels()["ann"] == {}
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


def test_unsure_takes_a_record_out_of_the_queue_but_is_no_label(desk):
    first = desk.start("ann").item.key
    view = desk.judge("ann", first, "unsure", comment="  too dark ")
    assert (view.item.index, view.progress.done, view.progress.unsure) == (1, 0, 1)
    view = desk.back("ann", view.item.key)
    assert (view.earlier.verdict, view.earlier.comment) == ("unsure", "too dark")
    assert desk.store.labels()["ann"] == {}
    view = desk.judge("ann", first, "unsure", comment="x" * 2001)
    assert "the comment has 2,001 characters, 2,000 are the most" in view.message


def test_going_on_from_a_judged_record_keeps_what_was_said(desk):
    first = desk.start("ann").item.key
    second = desk.judge("ann", first, "accept", qa_score=1.0, r_score=1.0).item.key
    assert desk.back("ann", second).item.key == first
    assert desk.skip("ann", first).item.key == second
    assert desk.store.labels()["ann"][first].verdict == "accept"


def test_a_record_is_found_by_number_id_and_key(desk):
    second = desk.jump("ann", " 2 ").item
    assert second.index == 1
    assert desk.jump("ann", second.key).item == desk.jump("ann", "test-1").item == second
    for text in ("0", "4", "٢", "nobody", "9" * 30):
        view = desk.jump("ann", text)
        assert view.item.index == (1 if text == "٢" else 0), text
        assert bool(view.message) == (text != "٢"), text


def test_differences_are_gone_through_in_order(world):
    desk = make_desk(world, [world.record(i) for i in range(4)], names=("ann", "bo"))
    keys = [item.key for item in desk.queue.queue("ann")]

    def say(name, place, verdict):
        desk.judge(name, keys[place], verdict, qa_score=1.0, r_score=1.0)

    assert desk.start("ann", "review").item is None
    people = [("accept", "reject"), ("accept", "accept"), ("reject", "accept")]
    for place, verdicts in enumerate(people):
        for name, verdict in zip(("ann", "bo"), verdicts, strict=True):
            say(name, place, verdict)
    say("ann", 3, "unsure")
    say("bo", 3, "accept")  # unsure is no label, so nobody differs
    view = desk.start("ann", "review")
    assert (view.item.index, view.differing) == (0, (2, 0))
    assert [(j.annotator, j.verdict) for j in view.judgements] == [
        ("ann", "accept"),
        ("bo", "reject"),
    ]
    assert desk.skip("ann", keys[0], mode="review").item.index == 2  # nothing is written
    assert desk.back("ann", keys[2], "review").item.index == 0
    view = desk.judge("ann", keys[0], "reject", qa_score=0.0, r_score=0.0, mode="review")
    assert (view.item.index, view.differing) == (2, (1, 0))
    assert desk.store.labels()["ann"][keys[0]].verdict == "reject"
    assert desk.agreement()["differing"] == 1


def test_many_people_and_clicks_at_once_lose_nothing(world):
    names = [f"p{i}" for i in range(4)]
    desk = make_desk(world, [world.record(i) for i in range(12)], names=names)
    keys = [item.key for item in desk.queue.queue("p0")]
    clicks = [(name, key) for key in keys for name in names for _ in range(3)]

    def click(one):
        name, key = one
        score = 1.0 if names.index(name) % 2 else 0.0
        view = desk.judge(name, key, "accept" if score else "reject", qa_score=score, r_score=score)
        return view.annotator == name and (view.item is None or view.item.key != key)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(click, clicks))
    judged = desk.store.labels()
    assert all(set(judged[name]) == set(keys) for name in names)
    for name in names:  # every click is a line, and each says what was clicked
        lines = desk.store.file(name).path.read_text().splitlines()
        assert len(lines) == 3 * len(keys) and desk.store.file(name).damaged == 0
        wanted = "accept" if names.index(name) % 2 else "reject"
        assert {j.verdict for j in judged[name].values()} == {wanted}


def test_a_large_corpus_is_not_read_to_label_its_first_records(world, monkeypatch):
    records = [world.record(i) for i in range(60)]
    records[1], records[2] = "{torn", world.record(0)  # bad, and a duplicate
    read = []

    def counted(dataset, index):
        read.append(index)
        return read_item(dataset, index)

    monkeypatch.setattr(label_queue, "read_item", counted)

    def open_desk(seed=None):
        dataset = world.open(records)
        viewer = RecordViewer(dataset)
        items = CorpusItems(dataset, range(len(dataset)), viewer.lock)
        store = JudgementStore(world.folder / "judgements", ["ann"])
        return LabelService(viewer, LabelQueue(items, ["ann"], seed=seed), store)

    desk = open_desk()
    view = desk.start("ann")
    assert (view.item.index, view.progress.total, read) == (0, 60, [0])
    view = desk.judge("ann", view.item.key, "accept", qa_score=1.0, r_score=1.0)
    assert (view.item.index, view.progress.total, read) == (3, 58, [0, 1, 2, 3])
    assert [r["index"] for r in desk.queue.items.rejects] == [1]
    assert desk.queue.items.duplicates == 1
    view = desk.jump("ann", "41")
    desk.judge("ann", view.item.key, "reject", qa_score=0.0, r_score=0.0)

    read.clear()
    desk = open_desk()  # a restart looks at the record judged last and goes on there
    view = desk.start("ann")
    assert (view.item.index, view.progress.done, read) == (41, 2, [40, 41])
    desk.queue.items.check_all()
    view = desk.start("ann")
    assert (view.item.index, view.progress.done, view.progress.total) == (3, 2, 58)
    # the order is that of all rows, whichever were read before
    order = list(range(60))
    random.Random("order 3").shuffle(order)
    shuffled = [item.index for item in open_desk(seed=3).queue.queue("ann")]
    bad = {1, max((0, 2), key=order.index)}  # of two records of one content the first to come stays
    assert shuffled == [n for n in order if n not in bad]


def test_a_file_that_cannot_be_used_is_told_and_nothing_is_said_to_be_saved(desk):
    """On the page: the reason stands there at start, and beside the record at a click."""
    gradio = pytest.importorskip("gradio")
    from lavis.ui.label.page import _Events

    events, view = _Events(desk, gradio), desk.start("ann")
    desk.store.file("ann").path.mkdir(parents=True)  # what no line can be written to
    page = events.load({"annotator": "ann"})
    assert "Is a directory" in page[4] and "annotator=bo" in page[4]
    with pytest.raises(gradio.Error, match=r"Not saved: .*Is a directory") as told:
        events.judge("ann", None, 0.0, "accept", 1.0, 1.0, token=view.token)
    assert not told.value.print_exception
    assert "Is a directory" in events.agreement()
    assert events.load({"annotator": "bo"})[1] == view.item.key
