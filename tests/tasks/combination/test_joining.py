"""Rows of several critics are joined by number, and refused where they are other rows."""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lavis.common.errors import DataError
from lavis.processors.text import BlipUnifiedVqa
from lavis.tasks.combination.joining import join, same_words
from lavis.tasks.combination.score_rows import CriticRun


@pytest.fixture
def runs(tmp_path):
    """Score files of rows that are `index: score`, or `index: (score, changes)`."""

    def write(*files):
        runs = []
        for number, rows in enumerate(files):
            path = tmp_path / f"{number}.jsonl"
            with open(path, "w") as file:
                for index, value in rows.items():
                    score, changes = value if isinstance(value, tuple) else (value, {})
                    row = {"text": f"text {index}", "instance": f"i{index}", "index": index}
                    file.write(json.dumps({**row, "score": score, **changes}) + "\n")
            runs.append(CriticRun("abc"[number], path))
        return runs

    return write


def test_rows_that_all_scored_are_joined_and_others_counted(runs):
    rows = join(
        runs({0: 0.1, 2: 0.3, 3: 0.4}, {0: 0.5, 1: 0.6, 3: 0.7, 9: 1}, {0: 0, 2: 0.2, 3: 0.25})
    )
    assert rows.indices.tolist() == [0, 3]
    np.testing.assert_array_equal(
        rows.scores, np.array([[0.1, 0.4], [0.5, 0.7], [0, 0.25]], dtype=np.float32)
    )
    assert rows.left_out == {"a": 1, "b": 2, "c": 1}
    assert rows.labels.tolist() == [-1, -1] and not len(rows.labelled())


@given(st.lists(st.sets(st.integers(0, 12)), min_size=2, max_size=3))
def test_shared_rows_are_the_intersection(tmp_path_factory, sets):
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for number, indices in enumerate(sets):
        path = folder / f"{number}.jsonl"
        rows = [{"text": "t", "index": i, "score": 0.5} for i in sorted(indices)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        made.append(CriticRun("abc"[number], path))
    shared = sorted(set.intersection(*sets))
    if not shared:
        with pytest.raises(DataError, match=r"no row was scored by all|empty"):
            join(made)
        return
    rows = join(made)
    assert rows.indices.tolist() == shared
    assert rows.left_out == {"abc"[n]: len(s) - len(shared) for n, s in enumerate(sets)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance": "j1"}, "row 1 has instance 'i1' in the one and 'j1' in the other"),
        ({"text": "another"}, "row 1 has text 'text 1' in the one and 'another' .*--any-text"),
        ({"label": 0}, "row 1 has label '1' in the one and '0' in the other; use one label_pol"),
    ],
)
def test_other_records_are_refused_by_their_first_difference(runs, changes, message):
    label = {"label": 1}
    files = runs({0: 0.1, 1: (0.2, label), 2: 0.2}, {0: 0.3, 1: (0.4, changes), 2: (1, changes)})
    with pytest.raises(DataError, match=message):
        join(files)


def test_texts_need_not_agree_where_that_is_wanted(runs):
    files = runs({0: 0.1}, {0: (0.3, {"text": "another"})})
    assert len(join(files, compare_texts=False).indices) == 1


def test_a_long_text_is_shown_from_its_difference(runs):
    long = "word " * 40
    files = runs({0: (0.1, {"text": long + "A"})}, {0: (0.3, {"text": long + "B"})})
    with pytest.raises(DataError, match=r"'\.\.\.word word word word A' in the one"):
        join(files)


@given(st.text(max_size=80))
def test_a_text_is_the_same_behind_the_critics_processor(text):
    assume(text.strip())
    assert same_words(text, BlipUnifiedVqa(prompt="Is it so: ")(text))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is [0]? A cup.", "what is [0] a cup", True),
        ("Was ist das? Straße", "was ist das? strasse", True),
        ("q? Answer: no", "q? Answer: no Rationale: it is", False),  # other words were scored
        ("w " * 70 + "and more", "w " * 70, True),  # cut
        ("कौन है", "क्या है", False),
        ("😀", "😎", False),
        ("", "", True),
    ],
)
def test_same_words(one, other, same):
    assert same_words(one, other) is same and same_words(other, one) is same
