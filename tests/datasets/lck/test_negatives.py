"""Synthetic negatives: never what the corpus says of the image, the same for the same seed."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.datasets.files.formats import open_records
from lavis.datasets.lck.negatives import (
    KINDS,
    NegativeMaker,
    normal,
    note_all,
    positive,
    write_negatives,
)
from lavis.datasets.lck.record import read_label
from lavis.datasets.lck.tokens import PARTS, read_tokens

COLOURS = ("red", "blue", "green")


def make_record(image, about, colour, number):
    return {
        "image": image,
        "index": f"r{number}",
        "region": [about],
        "region_all": [0, 1],
        "references": [{"name": str(i), "boxes": [[0, 0, 9, 9]]} for i in range(2)],
        "question": ["What", "colour", "is", [about], "?"],
        "answer": [f"{colour}."],
        "rationale": ["most", "of", [about], "is", "painted", f"{colour}."],
    }


def maker_of(records, **options):
    return NegativeMaker(
        note_all(len(records), records.__getitem__), records.__getitem__, **options
    )


def said(record):
    return tuple(normal(record[part]) for part in PARTS)


RECORDS = [
    make_record("a.png", 0, "red", 0),
    make_record("a.png", 1, "blue", 1),
    make_record("b.png", 0, "green", 2),
]


def test_a_region_swap_says_of_one_region_what_is_true_of_another():
    (wrong,) = maker_of(RECORDS, kinds=["region_swap"], difficulties=["easy"]).make(RECORDS[0], 1)
    assert wrong["rationale"] == ["most", "of", [1], "is", "painted", "red."]
    assert wrong["region"] == [0, 1]
    assert read_label(wrong) == 0 and wrong["r_score"] == 0
    assert wrong["qa_score"] == 1  # question and answer are as they were


def test_an_attribute_is_swapped_in_answer_and_rationale():
    maker = maker_of(RECORDS, kinds=["attribute_swap"], difficulties=["hard"])
    (wrong,) = maker.make(RECORDS[0], 1)
    assert wrong["answer"] == ["orange."]  # red stands first in its list: one neighbour
    assert wrong["rationale"][-1] == "orange." and wrong["qa_score"] == 0


def test_a_hard_answer_is_of_the_same_type_of_question():
    other = make_record("c.png", 0, "red", 3) | {"question": ["Who", "is", [0], "?"]}
    other["answer"] = ["a", "clown", "."]
    records = [*RECORDS, other]
    maker = maker_of(records, kinds=["answer_swap"], difficulties=["hard"])
    answers = {normal(wrong["answer"]) for wrong in maker.make(records[0], 1)}
    assert answers <= {"blue", "green"} and answers


def test_texts_are_told_apart_by_marks_and_not_by_their_composition():
    assert normal(["कि", [0]]) != normal(["की", [0]])
    assert normal(["Cafe\u0301", "!"]) == normal(["café"])


def test_a_rationale_comes_from_another_image_and_keeps_the_regions():
    maker = maker_of(RECORDS, kinds=["rationale_swap"], difficulties=["easy"])
    (wrong,) = maker.make(RECORDS[1], 1)
    assert normal(wrong["rationale"]) == "most of [1] is painted green"
    assert wrong["answer"] == RECORDS[1]["answer"]


def test_an_answer_that_is_also_true_of_the_image_is_not_taken():
    records = [make_record("a.png", 0, colour, n) for n, colour in enumerate(COLOURS)]
    maker = maker_of(records, kinds=["answer_swap"])
    assert not list(maker.make(records[0], 4))


def test_right_records_lose_what_a_critic_said_of_them():
    right = positive({**RECORDS[0], "prediction": 0.9})
    assert "prediction" not in right and read_label(right) == 1


records_lists = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.sampled_from(COLOURS)),
    min_size=1,
    max_size=12,
).map(lambda rows: [make_record(f"{r[0]}.png", *r[1:], n) for n, r in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(records_lists, st.integers(0, 3), st.integers(1, 6))
def test_no_negative_is_a_record_of_its_image(records, seed, count):
    maker = maker_of(records, seed=seed)
    true = {(r["image"], *said(r)) for r in records}
    true_pairs = {key[:3] for key in true}
    for record in records:
        negatives = list(maker.make(record, count))
        assert len(negatives) <= count
        assert len({said(wrong) for wrong in negatives}) == len(negatives)
        for wrong in negatives:
            key = (wrong["image"], *said(wrong))
            assert key not in true
            assert key[:3] not in true_pairs or key[1:3] == said(record)[:2]
            assert wrong["negative"] in KINDS and read_label(wrong) == 0
            for part in PARTS:
                ids = [i for t in read_tokens(wrong, part) if isinstance(t, list) for i in t]
                assert set(ids) <= set(wrong["region"])


@settings(max_examples=20, deadline=None)
@given(records_lists, st.integers(0, 3))
def test_negatives_depend_on_seed_and_record_only(records, seed):
    forward = [list(maker_of(records, seed=seed).make(r, 2)) for r in records]
    maker = maker_of(records, seed=seed)
    backward = [list(maker.make(r, 2)) for r in reversed(records)]
    assert forward == backward[::-1]


def test_records_of_no_use_are_counted_by_reason(tmp_path):
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps(record) for record in RECORDS]
    corpus.write_text("\n".join([*lines, "{broken", json.dumps({"image": "a.png"})]) + "\n")
    counts = write_negatives(open_records([str(corpus)]), out, 2)
    assert counts["right"] == 3
    assert counts["not used: malformed line"] == 1 and counts["not used: missing field"] == 1
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(record["reject_label"] == 0 for record in written) == 3
    assert len(written) == 3 + sum(v for k, v in counts.items() if ", " in k)
