"""A score file is read as it was written, and anything else is refused by name and row."""

import json

import pytest

from lavis.common.errors import DataError
from lavis.tasks.combination.score_rows import CriticRun, open_runs, read_rows

ROW = {"text": "t", "instance": "a", "index": 0, "prediction": 1, "score": 0.9}


@pytest.fixture
def file(tmp_path):
    def write(*rows, name="scores.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_calibrated_scores_are_those_that_thresholds_see(file):
    rows = [
        {**ROW, "index": 2, "label": 0, "calibrated_score": 0.25},
        {**ROW, "index": 7, "label": None, "calibrated_score": 1},
    ]
    read = list(read_rows(CriticRun("a", file(*rows))))
    assert [(row.index, row.score, row.label) for row in read] == [(2, 0.25, 0), (7, 1.0, -1)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "index": "0"}], "row 1: index '0' is no row number"),
        ([{**ROW, "index": True}], "index True is no row number"),
        ([{k: v for k, v in ROW.items() if k != "score"}], "no 'score'; name result/"),
        ([{**ROW, "text": ["t"]}], "no 'text'"),
        ([{**ROW, "score": float("nan")}], "score nan is no number from 0 to 1"),
        ([{**ROW, "score": 1.5}], "score 1.5 is no number from 0 to 1"),
        ([{**ROW, "score": "0.5"}], "score '0.5' is no number"),
        ([ROW, ROW], "row 2: index 0 comes twice"),
        ([{**ROW, "index": 3}, ROW], "index 0 comes after 3"),
        ([ROW, {**ROW, "index": 1, "calibrated_score": 0.1}], "some rows have a calibrated_score"),
    ],
)
def test_what_is_no_score_file_is_refused(file, rows, message):
    with pytest.raises(DataError, match=message):
        list(read_rows(CriticRun("a", file(*rows))))


def test_runs_are_named_by_folder_or_by_hand(file, tmp_path):
    one = file(ROW, name="v1.5/result/test_epochbest.jsonl")
    other = file(ROW, name="deep/v1.5/result/test_epochbest.jsonl")
    with pytest.raises(DataError, match=r"two critics are called 'v1\.5'; write NAME="):
        open_runs([str(one), str(other)])
    runs = open_runs([str(one.parent.parent), f"qwen={other}"])
    assert [(run.name, run.path) for run in runs] == [("v1.5", one), ("qwen", other)]
    assert runs[0].result == "test_epochbest" and runs[0].config is None
    (tmp_path / "v1.5" / "config.yaml").write_text("")
    assert runs[0].config == tmp_path / "v1.5" / "config.yaml"
    loose = file(ROW, name="a.b=c.jsonl.gz")
    assert open_runs([str(one), str(loose)])[1].name == "a.b=c"


def test_runs_that_cannot_be_told_apart_are_refused(file):
    one = file(ROW, name="a/result/test_epochbest.jsonl")
    with pytest.raises(DataError, match="1 score file named"):
        open_runs([str(one)])
    with pytest.raises(DataError, match="named twice"):
        open_runs([f"x={one}", f"y={one}"])
    with pytest.raises(DataError, match="a critic called 'combined'"):
        open_runs([f"combined={one}", f"y={one}"])
    file(ROW, name="a/result/control_epochbest.jsonl")
    with pytest.raises(
        DataError, match=r"there are: control_epochbest\.jsonl, test_epochbest\.jsonl"
    ):
        open_runs([str(one.parent.parent), f"y={one}"])
    with pytest.raises(DataError, match="there are: none"):
        open_runs(["nowhere", f"y={one}"])
