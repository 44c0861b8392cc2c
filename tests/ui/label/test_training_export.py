"""What people said becomes the critic's training data, read back by the data set itself."""

import json

import pytest
from label_items import read_items

from lavis.datasets.lck.record import read_label
from lavis.ui.label.judgements import Judgement
from lavis.ui.label.training_export import export_comments, export_training, training_record
from lavis.ui.shown import open_corpus


def said(*verdicts, qa=None, r=None):
    qa, r = qa or [None] * len(verdicts), r or [None] * len(verdicts)
    return [
        Judgement(key="k", annotator=f"p{i}", verdict=v, qa_score=qa[i], r_score=r[i])
        for i, v in enumerate(verdicts)
    ]


def test_labels_are_listed_and_scores_averaged(world):
    record = world.record(label=["reject"], reject_label=1, qa_score=0.1, prediction=0.9)
    people = said("accept", "reject", "accept", qa=[1.0, 0.0, 0.5], r=[1.0, None, 0.5])
    found = training_record(record, people)
    assert found["label"] == ["accept", "reject", "accept"]
    assert (found["qa_score"], found["r_score"]) == (pytest.approx(0.5), pytest.approx(0.75))
    assert "reject_label" not in found and found["prediction"] == 0.9
    assert training_record(record, people, majority=True)["reject_label"] == 0
    assert "qa_score" not in training_record(record, said("accept"))


@pytest.mark.parametrize("majority", [False, True])
@pytest.mark.parametrize(
    ("verdicts", "accepted", "written"),
    [
        ("a", 1, True),  # two accepts cannot be: `reject_label` must say it
        ("r", 0, False),
        ("aa", 1, False),
        ("ar", 0, False),  # a tie
        ("aar", 1, False),
        ("arr", 0, False),
        ("aarr", 0, True),  # a tie with two accepts
        ("aarrr", 0, True),
        ("aaarr", 1, False),
    ],
)
def test_readers_get_the_majority(verdicts, accepted, written, majority):
    people = said(*({"a": "accept", "r": "reject"}[v] for v in verdicts))
    record = training_record({}, people, majority=majority)
    assert read_label(record) == accepted
    assert ("reject_label" in record) == (written or majority)


def test_the_export_trains_the_critic(world):
    dataset = world.open([world.record(i) for i in range(4)])
    items = read_items(dataset).all()
    keys = [item.key for item in items]

    def of(name, pairs):
        return {
            keys[i]: Judgement(key=keys[i], annotator=name, verdict=v, qa_score=1.0, r_score=0.0)
            for i, v in pairs
        }

    judged = {
        "a": of("a", [(2, "accept"), (0, "accept"), (1, "reject")]),
        "b": of("b", [(0, "accept"), (1, "accept")]),
    }
    judged["b"]["gone"] = Judgement(key="gone", annotator="b", verdict="accept")
    target = world.folder / "out" / "train.jsonl"
    counts = export_training(dataset, items, judged, target)
    assert counts == {
        "file": str(target), "written": 3, "accepted": 2, "with_reject_label": 1,
        "too_few_judgements": 0, "judged_but_not_in_corpus": 1,
    }  # fmt: skip
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(r["index"], r["label"]) for r in records] == [
        ("test-0", ["accept", "accept"]),
        ("test-1", ["reject", "accept"]),
        ("test-2", ["accept"]),
    ]
    rows = open_corpus([str(target)], str(world.root))
    assert [rows.row(i).targets for i in range(3)] == [
        {"label": label, "qa_label": 1.0, "r_label": 0.0} for label in (1, 0, 1)
    ]
    counts = export_training(dataset, items, judged, target, min_annotators=2)
    assert (counts["written"], counts["too_few_judgements"]) == (2, 1)
    assert [p.name for p in target.parent.iterdir()] == ["train.jsonl"]


def test_unsure_is_no_label_and_comments_are_kept(world, tmp_path):
    dataset = world.open([world.record(i) for i in range(3)])
    items = read_items(dataset).all()

    def say(name, verdict, place, comment=""):
        key = items[place].key
        return {
            key: Judgement(key=key, annotator=name, verdict=verdict, comment=comment, instance="i")
        }

    judged = {
        "ann": {**say("ann", "accept", 0, "fine"), **say("ann", "unsure", 1, "dark")},
        "bo": {**say("bo", "unsure", 0, "who knows"), **say("bo", "skip", 2, "ugly")},
    }
    counts = export_training(dataset, items, judged, tmp_path / "t.jsonl")
    records = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [record["label"] for record in records] == [["accept"]]
    assert records[0]["label_comments"] == [
        {"annotator": "ann", "comment": "fine"},
        {"annotator": "bo", "comment": "who knows"},
    ]
    assert (counts["written"], counts["too_few_judgements"]) == (1, 0)
    assert export_comments(judged, tmp_path / "c.jsonl") == 4
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [(c["annotator"], c["verdict"], c["comment"]) for c in lines] == [
        ("ann", "accept", "fine"),
        ("ann", "unsure", "dark"),
        ("bo", "unsure", "who knows"),
        ("bo", "skip", "ugly"),
    ]
