"""A record's text, name and regions."""

import random

from lavis.datasets.lck.text import choose_regions, instance_of, qar_text
from lavis.datasets.lck.tokens import has_empty_rationale


def write(tokens):
    return " ".join(str(token) for token in tokens)


def test_a_record_is_question_answer_and_rationale():
    record = {"question": ["Who", "?"], "answer": ["I"], "rationale": []}
    assert qar_text(record, include_rationale=True, write=write) == "Who ? Answer: I Rationale:"
    assert qar_text(record, include_rationale=False, write=write) == "Who ? Answer: I"
    assert has_empty_rationale(record) and not has_empty_rationale({**record, "rationale": ["x"]})
    assert qar_text({"full_text_input": ["a"]}, include_rationale=True, write=write) == "a"


def test_a_record_is_called_by_its_own_name_else_by_its_row():
    assert instance_of({"index": 0}, 9) == "0"
    assert instance_of({"index": [1], "instance_id": "x"}, 9) == "x"
    assert instance_of({}, 9) == "9"


def test_training_chooses_among_all_regions():
    record = {"region": [3, 1], "region_all": [1, 2, 3, 4]}
    assert choose_regions(record, 0.0, None) == [3, 1]
    assert choose_regions(record, 1.0, random.Random(0), shuffle=False) == [3, 1]
    assert sorted(choose_regions(record, 0.0, random.Random(0))) == [1, 2, 3, 4]
