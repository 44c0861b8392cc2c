"""The student's data: pairs in training, choices in evaluation, stable image ids."""

import random

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import ContrastiveConfig


@pytest.fixture
def opened(lck, images):
    def build(records, split="test", source=None, **options):
        path = lck.write(images / f"{split}.jsonl", records)
        config = ContrastiveConfig(
            data_type="csv",
            build_info={
                "annotations": {split: {"storage": [path], **(source or {})}},
                "csv": {"storage": str(images)},
            },
            text_processor={
                k: {"name": "blip_unified_vqa", "prompt": "question: "} for k in ("train", "eval")
            },
            **options,
        )
        return build_dataset("unified_vqa_chatgpt_contrastive", config, split)

    return build


def choice_record(**changes):
    record = {
        "image": "a.png",
        "instance_id": "s-1",
        "references": {
            "5": {"boxes": [[1, 1, 9, 9]], "obj_guess": "dog"},
            "2": {"boxes": [[3, 3, 12, 12]], "obj_guess": "cat"},
        },
        "text_input": ["Who", "is", [5], "?"],
        "answer_prefix": "Inference:",
        "choices": [
            {"text_output": ["A", "friend", "of", [2]], "score": 2},
            {"text_output": ["Nobody"], "score": 0.5},
        ],
        "label": 0,
    }
    return {**record, **changes}


def test_training_text_with_and_without_rationale(opened, lck):
    dataset = opened([lck.record()], split="train")
    rows = [dataset.row(0, random.Random(seed)) for seed in range(200)]
    with_rationale = [row for row in rows if "rationale:" in row.text]
    assert 70 <= len(with_rationale) <= 130
    assert all(row.text.startswith("question: what is [") for row in rows)
    named = {frozenset(r.region_id for r in row.drawing.regions) for row in rows}
    assert named == {frozenset({1, 3}), frozenset({1, 2, 3})}
    for row in rows:
        assert len(row.drawing.drawn) == len(row.drawing.regions)
        place = [r.region_id for r in row.drawing.regions].index(3)
        assert row.text.startswith(f"question: what is [{place}] ?")


def test_evaluation_choices_are_texts_of_one_image_in_fixed_order(opened):
    dataset = opened([choice_record(), choice_record(label=1)], source={"is_mc": True})
    rows = [dataset.row(i, random.Random(i)) for i in range(2)]
    expected = (
        "question: who is [0] ? inference: a friend of [1]",
        "question: who is [0] ? inference: nobody",
    )
    assert rows[0].texts == rows[1].texts == expected
    assert rows[0].text == expected[0]
    assert [r.region_id for r in rows[0].drawing.regions] == [5, 2]
    assert rows[0].fields == {"index": 0, "instance": "s-1", "label": 0, "scores": [2.0, 0.5]}
    samples = dataset.collate(rows, None, [0, 0])
    assert samples["text_input"] == [*expected, *expected]
    assert samples["image_index"].tolist() == [0, 0, 0, 0]
    assert samples["text_count"].tolist() == [2, 2]
    assert "label" not in samples  # a choice, not accept or reject


@pytest.mark.parametrize(
    ("source", "expected", "drawn"),
    [
        ({"no_question": True}, "question:   a friend of [1]", 2),
        ({"no_regions": True}, "question: who is  ? inference: a friend of ", 0),
        (
            {"no_regions": True, "use_object_tags": True},
            "question: who is dog ? inference: a friend of cat",
            0,
        ),
        ({"use_object_tags": True}, "question: who is dog [0] ? inference: a friend of cat [1]", 2),
    ],
)
def test_ablations(opened, source, expected, drawn):
    row = opened([choice_record()], source={"is_mc": True, **source}).row(0)
    assert row.texts[0].strip() == expected.strip()
    assert len(row.drawing.drawn) == drawn


def test_image_ids_are_stable_across_rows_files_and_splits(opened, lck):
    train = opened([lck.record(0), lck.record(1)], split="train")
    test = opened([choice_record()], source={"is_mc": True})
    ids = {d.row(i).targets["image_id"] for d, n in ((train, 2), (test, 1)) for i in range(n)}
    assert len(ids) == 1
    assert 0 <= ids.pop() < 2**63
    by_row = opened([lck.record(0), lck.record(1)], split="train", image_id="row")
    assert [by_row.row(i).targets["image_id"] for i in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"choices": []}, "missing field: choices"),
        ({"choices": ["x"]}, "wrong type: choices holds"),
        ({"choices": [{"text_output": [[9]]}]}, "empty text: text_output"),
        ({"label": 2}, "wrong type: label is 2, expected a choice from 0 to 1"),
    ],
)
def test_bad_choices_are_reported(opened, changes, reason):
    dataset = opened([choice_record(**changes)], source={"is_mc": True})
    with pytest.raises(RecordError, match=reason):
        dataset.row(0)


def test_ratings_of_two_raters_flags_and_groups(opened):
    choices = [
        {"text_output": ["A", "friend"], "score": [2, 3], "truth": 1},
        {"text_output": ["Nobody"], "score": [1, 0.5], "truth": 0},
    ]
    row = opened([choice_record(choices=choices, group="why")]).row(0)
    assert row.fields["scores"] == [[2.0, 1.0], [3.0, 0.5]]  # a list for each rater
    assert row.fields["truths"] == [1, 0]
    assert row.fields["group"] == "why"
    assert row.targets["question"] == "question: who is [0] ? inference:"
    assert row.targets["answers"] == ["a friend", "nobody"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"score": [1]}, "score is not a list of equally many raters"),
        ({"truth": 2}, "truth is 2, expected 0 or 1"),
        ({"score": "x"}, "score is 'x', expected a number"),
    ],
)
def test_bad_judgements_are_reported(opened, values, reason):
    good = {"text_output": ["Nobody"], "score": 1, "truth": 1}
    choices = [good, {**good, **values}]
    with pytest.raises(RecordError, match=reason):
        opened([choice_record(choices=choices)]).row(0)


def test_an_empty_rationale_leaves_its_word(opened, lck):
    dataset = opened([lck.record(rationale=[])])
    assert dataset.row(0).text == "question: what is [0] ? answer: near [1] . rationale:"


def test_the_parts_of_pairs_and_choices_are_told_apart(opened, lck):
    pair = opened([lck.record()], split="train").row(0, random.Random(1))
    assert set(pair.parts[0]) >= {"question", "answer"}
    row = opened([choice_record()]).row(0)
    assert [parts["answer"] for parts in row.all_parts] == ["A friend of [1]", "Nobody"]
    assert {parts["question"] for parts in row.all_parts} == {"Who is [0] ?"}
    assert [parts["text"] for parts in row.all_parts] == list(row.all_texts)
