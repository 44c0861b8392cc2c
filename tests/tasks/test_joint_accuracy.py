"""Two runs on the same items: what is right in both, by hand."""

import json

import pytest

from lavis.common.errors import DataError
from lavis.tasks.joint_accuracy import joint_accuracy, read_marks


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
    found = joint_accuracy(read_marks(first), read_marks(second))
    assert (found["items"], found["left_out"]) == (4, 2)
    assert [found[name]["value"] for name in ("first", "second", "both")] == [75.0, 75.0, 50.0]
    assert [found[name]["chance"] for name in ("first", "second", "both")] == [25.0, 25.0, 6.25]
    low, high = found["both"]["interval"]
    assert 0 <= low < 50 < high <= 100


def test_runs_that_cannot_be_joined(tmp_path):
    with pytest.raises(DataError, match="found none"):
        read_marks(tmp_path)
    folder = write_run(tmp_path, {"a": True})
    with pytest.raises(DataError, match="share no item"):
        joint_accuracy(read_marks(folder), {"b": (True, 0.25)})
    file = folder / "result" / "val_epochbest.jsonl"
    file.write_text(file.read_text() * 2)
    with pytest.raises(DataError, match="item a comes twice"):
        read_marks(file)
    write_run(tmp_path, {"a": True}, name="held_out_epochbest")
    with pytest.raises(DataError, match=r"found held_out_epochbest\.jsonl, val_epochbest\.jsonl"):
        read_marks(tmp_path)
    write_run(tmp_path, {"b": True}, name="test_epochbest")
    assert list(read_marks(tmp_path)) == ["b"]
