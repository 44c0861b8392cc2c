"""ImageNetVC: five prompts a question, with demonstrations or without."""

from __future__ import annotations

import pytest
from benchmark_opening import make, questions, write_imagenetvc

from lavis.common.errors import DataError, RecordError


def test_imagenetvc_asks_five_prompts_in_five_subsets(tmp_path):
    write_imagenetvc(tmp_path)
    dataset = make("imagenetvc", tmp_path)
    assert len(dataset) == 9
    first = dataset.question(0)
    assert first.prompts == (
        "What color is a tench?",
        "What color is a tench? Answer:",
        "What color is a tench? The answer is",
        "Question: What color is a tench? Answer:",
        "Question: What color is a tench? The answer is",
    )
    assert (first.gold, first.group, first.options[:2]) == ("green", "color", ("brown", "black"))
    kinds = [dataset.question(n).meta["answer_set"] for n in (5, 6, 7)]
    assert kinds == ["others_yes", "others_number", "others_other"]
    with pytest.raises(RecordError, match="empty text: question"):
        dataset.question(8)
    assert dataset.source(8)["line"] == 5
    assert [q.group for q in questions(make("imagenetvc", tmp_path, subsets=["shape"]))] == [
        "shape"
    ]


def test_demonstrations_precede_prompts_but_not_images(tmp_path):
    write_imagenetvc(tmp_path)
    (tmp_path / "dev").mkdir()
    lines = "category,question,answer\r\nchow,What color is a chow?,brown\n"
    (tmp_path / "dev" / "color.csv").write_text(lines + "milk,And milk?,white\n")
    dataset = make("imagenetvc", tmp_path, subsets=["color"], use_icl=True)
    asked = dataset.question(0)
    assert asked.prompts[4] == (
        "Question: What color is a chow? The answer is brown. Question: And milk? The answer is "
        "white. Question: What color is a tench? The answer is"
    )
    assert asked.image_text == "What color is a tench?"
    with pytest.raises(DataError, match=r"dev/shape.csv: no such file; use_icl needs"):
        make("imagenetvc", tmp_path, subsets=["shape"], use_icl=True)
