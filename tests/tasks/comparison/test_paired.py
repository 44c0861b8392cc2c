"""Two runs on the same records: their difference and the sign test."""

import json

import pytest

from lavis.common.errors import DataError
from lavis.tasks.comparison.paired import compare_figures, read_figures


def write(folder, rows):
    (folder / "result").mkdir(parents=True)
    lines = "".join(json.dumps({"texts": ["a", "b"], **row}) + "\n" for row in rows)
    (folder / "result" / "test_epochbest.jsonl").write_text(lines)
    return folder


def test_differences_are_of_the_same_records(tmp_path):
    right, wrong = [0.1, 0.9], [0.9, 0.1]
    scores = {"one": [right] * 6 + [wrong] * 2, "two": [right] * 2 + [wrong] * 6}
    runs = {
        name: write(
            tmp_path / name,
            [{"instance": n, "label": 1, "match_scores": s} for n, s in enumerate(own)],
        )
        for name, own in scores.items()
    }
    one, two = (read_figures(run, "accuracy", 0) for run in runs.values())
    assert one == {str(n): float(n < 6) for n in range(8)}
    result = compare_figures(one, {k: v for k, v in two.items() if k != "7"})
    assert (result["records"], result["left_out"]) == (7, 1)
    assert (result["better"], result["worse"]) == (4, 0)
    assert result["difference"] == pytest.approx(400 / 7)
    assert result["p_value"] == pytest.approx(2 * 0.5**4)


def test_runs_without_a_shared_record_and_doubled_items_are_refused(tmp_path):
    row = {"instance": "x", "label": 0, "match_scores": [1, 0]}
    twice = write(tmp_path / "twice", [row, row])
    with pytest.raises(DataError, match="item x comes twice"):
        read_figures(twice, "accuracy", 0)
    assert read_figures(twice, "recall", 0) == {}
    with pytest.raises(DataError, match="share no record"):
        compare_figures({"a": 1.0}, {"b": 1.0})
