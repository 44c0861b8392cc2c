"""Two runs on the same items: what is right in both, by hand."""

import json

import numpy as np
import pytest

from lavis.common.errors import DataError
from lavis.tasks.comparison.joint_accuracy import joint_accuracy, read_results


def write_run(folder, marks, name="val_epochbest"):
    rows = [
        {"instance": item, "texts": list("abcd"), "label": 1, "prediction": int(right)}
        for item, right in marks.items()
    ]
    rows.append({"instance": "unlabelled", "texts": list("ab"), "prediction": 0})
    (folder / "result").mkdir(parents=True, exist_ok=True)
    path = folder / "result" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_an_item_counts_where_both_are_right(tmp_path):
    first = write_run(tmp_path / "qa", {"a": True, "b": True, "c": False, "d": True, "x": True})
    second = write_run(tmp_path / "qar", {"d": False, "c": True, "b": True, "a": True, "y": True})
    found = joint_accuracy(read_results(first), read_results(second))
    assert (found["items"], found["left_out"]) == (4, 2)
    assert [found[name]["value"] for name in ("first", "second", "both")] == [75.0, 75.0, 50.0]
    assert [found[name]["chance"] for name in ("first", "second", "both")] == [25.0, 25.0, 6.25]
    assert (first_interval := found["first"]["interval"]) == found["second"]["interval"]
    # four draws of (1, 1, 0, 1): P(0 right) = .004, P(<= 1) = .051
    assert first_interval == [25.0, 100.0]


def test_intervals_are_of_95_percent_and_of_the_seed(tmp_path):
    names = [f"{n}" for n in range(16)]
    first = {name: (int(name) < 12, 0.25) for name in names}
    second = {name: (int(name) >= 4, 0.25) for name in names}
    found = joint_accuracy(first, second, resamples=20_000)
    assert [found[name]["value"] for name in ("first", "second", "both")] == [75.0, 75.0, 50.0]
    # both: Binomial(16, 1/2), P(<= 3) = .0106 and P(<= 4) = .0384
    assert found["both"]["interval"] == [25.0, 75.0]
    # each: Binomial(16, 3/4), P(<= 7) = .0075, P(<= 8) = .0271; P(<= 14) = .937, P(<= 15) = .990
    assert found["first"]["interval"] == [50.0, 93.75]
    draw = np.random.default_rng(0)
    first, second = ({f"{n}": (bool(draw.random() < 0.5), 0.5) for n in range(300)} for _ in "ab")

    def intervals(**options):
        found = joint_accuracy(first, second, resamples=50, **options)
        return [found[name]["interval"] for name in ("first", "second", "both")]

    assert intervals(seed=1) == intervals(seed=1) != intervals(seed=2)
    assert intervals() == intervals(seed=0)
    found = [joint_accuracy(first, second, **one) for one in ({}, {"resamples": 1000})]
    assert found[0] == found[1]


def test_what_counts_as_an_item(tmp_path):
    rows = [
        {"instance": "two", "texts": ["a", "b"], "label": 0, "prediction": 0},
        {"instance": "one", "texts": ["a"], "label": 0, "prediction": 0},  # nothing to choose
        {"instance": 3, "texts": ["a", "b", "c", "d"], "label": 2, "prediction": 1},
        {"instance": "später", "texts": ["a", "b"], "label": None, "prediction": 1},
        {"instance": "früher", "texts": ["a", "b"], "label": 1, "prediction": 1},
    ]
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert read_results(file) == {"two": (True, 0.5), "3": (False, 0.25), "früher": (True, 0.5)}


def test_runs_that_cannot_be_joined(tmp_path):
    with pytest.raises(DataError, match="found none"):
        read_results(tmp_path)
    folder = write_run(tmp_path, {"a": True})
    with pytest.raises(
        DataError,
        match=r"^the two runs share no item; score both with labels, of the same split$",
    ):
        joint_accuracy(read_results(folder), {"b": (True, 0.25)})
    file = folder / "result" / "val_epochbest.jsonl"
    file.write_text(file.read_text() * 2)
    with pytest.raises(DataError, match="item a comes twice"):
        read_results(file)
    write_run(tmp_path, {"a": True}, name="held_out_epochbest")
    with pytest.raises(DataError, match=r"found held_out_epochbest\.jsonl, val_epochbest\.jsonl"):
        read_results(tmp_path)
    write_run(tmp_path, {"b": True}, name="test_epochbest")
    assert list(read_results(tmp_path)) == ["b"]
