"""Options behind their context, in published forms and the hub's."""

from __future__ import annotations

import pytest
from benchmark_opening import make, questions, write_lines, write_parquet

from lavis.common.errors import DataError, RecordError

PIQA = {"goal": "Warm soup.", "sol1": "Use a flask.", "sol2": "Use a plate."}


SIQA = {"context": "Kai ate.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z"}


HELLASWAG = {"ind": 7, "ctx": "A man cooks. He", "endings": ["eats.", "flies.", "is.", "on."]}


WINO = {"qID": "w1", "sentence": "The _ is big.", "option1": "cat", "option2": "dog"}


CHOICES = {"text": ["red", "blue"], "label": ["A", "B"]}


LISTED = [{"text": "red", "label": "1"}, {"text": "blue", "label": "2"}]


CASES = [
    ("piqa", "validation-00000.parquet", {**PIQA, "label": 1}, 1, "Warm soup. Use a plate."),
    ("siqa", "validation.jsonl", {**SIQA, "label": "2"}, 1, "Kai ate. Why? y"),
    ("hellaswag", "hellaswag_val.jsonl", {**HELLASWAG, "label": 1}, 1, "A man cooks. He flies."),
    ("hellaswag", "validation.parquet", {**HELLASWAG, "label": "3"}, 3, "A man cooks. He on."),
    ("winogrande", "dev.jsonl", {**WINO, "answer": "2"}, 1, "The dog is big."),
    (
        "arc_easy",
        "ARC-Easy/ARC-Easy-Test.jsonl",
        {"id": "q", "question": {"stem": "Sky?", "choices": LISTED}, "answerKey": "2"},
        1,
        "Sky? blue",
    ),
    (
        "arc_challenge",
        "ARC-Challenge/test-00000-of-00001.parquet",
        {"id": "q", "question": "Sky?", "choices": CHOICES, "answerKey": "B"},
        1,
        "Sky? blue",
    ),
    (
        "obqa",
        "Data/Main/test.jsonl",
        {"id": "q", "question": {"stem": "Sky", "choices": LISTED}, "answerKey": "1"},
        0,
        "Sky red",
    ),
    (
        "obqa",
        "main/test-00000-of-00001.parquet",
        {"id": "q", "question_stem": "Sky", "choices": CHOICES, "answerKey": "A"},
        0,
        "Sky red",
    ),
    (
        "cqa",
        "dev_rand_split.jsonl",
        {
            "id": "q",
            "question": {"stem": "Sky?", "question_concept": "sky", "choices": LISTED},
            "answerKey": "A",
        },
        0,
        "Sky? red",
    ),
    (
        "cqa",
        "data/validation.parquet",
        {"id": "q", "question": "Sky?", "choices": CHOICES, "answerKey": "B"},
        1,
        "Sky? blue",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "record", "gold", "text"), CASES)
def test_options_follow_their_context(name, file, record, gold, text, tmp_path):
    bad = {k: v for k, v in record.items() if k not in ("label", "answer", "answerKey")}
    if file.endswith("parquet"):
        write_parquet(tmp_path / file, [record])
        count = 1
    else:
        write_lines(tmp_path / file, [record, bad])
        count = 2
    dataset = make(name, tmp_path)
    assert len(dataset) == count
    found = dataset.question(0)
    assert (found.gold, found.prompts[found.gold]) == (gold, text)
    if count == 2:
        with pytest.raises(RecordError, match="wrong label"):
            dataset.question(1)


def test_labels_lie_beside_the_lines_as_published(tmp_path):
    write_lines(tmp_path / "valid.jsonl", [PIQA, PIQA])
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    write_lines(tmp_path / "dev.jsonl", [SIQA])
    (tmp_path / "dev-labels.lst").write_text("3\n")
    assert [q.gold for q in questions(make("piqa", tmp_path))] == [1, 0]
    assert [q.gold for q in questions(make("siqa", tmp_path))] == [2]
    (tmp_path / "valid-labels.lst").write_text("1\n")
    with pytest.raises(DataError, match="1 labels for 2 records"):
        make("piqa", tmp_path)


def test_winogrande_reads_what_follows_the_blank(tmp_path):
    write_lines(tmp_path / "dev.jsonl", [{**WINO, "answer": "1"}])
    question = make("winogrande", tmp_path).question(0)
    assert [t[s:] for t, s in zip(question.prompts, question.starts, strict=True)] == [
        " is big."
    ] * 2
    assert question.image_text == "The cat or dog is big."


def test_arc_is_pooled_from_both_files(tmp_path):
    record = {"question": "Sky?", "choices": CHOICES, "answerKey": "A"}
    for name in ("Easy", "Challenge"):
        write_lines(tmp_path / f"ARC-{name}-Test.jsonl", [{**record, "id": name}])
    groups = [(q.group, q.question_id) for q in questions(make("arc", tmp_path))]
    assert groups == [("arc_easy", "Easy"), ("arc_challenge", "Challenge")]
