"""Combined rows as a journal gives them, and the data set of the run that they come from."""

import gzip
import json
import shutil

import numpy as np
import pytest

from lavis.common.errors import ConfigError, DataError
from lavis.tasks.combination.joining import join
from lavis.tasks.combination.output import CombinedRows, open_data, write_lines
from lavis.tasks.combination.rules import combine
from lavis.tasks.combination.score_rows import open_runs


@pytest.fixture
def two(corpus, run_folder):
    corpus(4)
    folders = run_folder("a", [0.25, None, 0.75, 0.5]), run_folder("b", [0.75, 0.5, 0.25, None])
    runs = open_runs([str(folder) for folder in folders])
    rows = join(runs)
    return runs, rows, combine(rows, "mean")


def test_rows_of_no_score_are_rejects_and_shown_ones_are_kept(two):
    runs, rows, combination = two
    dataset, thresholds = open_data(runs[0], [])
    assert thresholds == [0.5, 0.8] and len(dataset) == 4
    reader = CombinedRows(runs[0], rows, combination, dataset, shown=[1])
    found = dict(reader.iterate())
    assert list(found) == [0, 1, 2, 3]
    assert found[1] == found[3] == {"reject": "not scored: by every critic"}
    assert [found[n]["score"] for n in (0, 2)] == [0.5, 0.5] and found[0]["score_b"] == 0.75
    assert reader.payloads == {1: found[2]}


def test_without_a_data_set_only_scores_are_written(two, tmp_path):
    runs, rows, combination = two
    write_lines(CombinedRows(runs[0], rows, combination), tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 2]


def test_a_packed_score_file_is_as_good(two, tmp_path):
    runs, rows, _ = two
    packed = runs[1].path.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(runs[1].path.read_bytes()))
    again = join(open_runs([f"a={runs[0].path}", f"b={packed}"]))
    np.testing.assert_array_equal(again.scores, rows.scores)
    assert open_runs([f"a={runs[0].path}", f"b={packed}"])[1].result == "test_epochbest"


def test_a_score_file_that_changes_meanwhile_is_noticed(two):
    runs, rows, combination = two
    reader = CombinedRows(runs[0], rows, combination)
    first = runs[0].path.read_text().splitlines()[0]
    runs[0].path.write_text(first + "\n")
    with pytest.raises(DataError, match="changed while it was read"):
        list(reader.iterate())


def test_a_score_file_of_no_split_is_refused(two):
    runs, _, _ = two
    path = runs[0].path.with_name("mine.jsonl")
    shutil.copy(runs[0].path, path)
    with pytest.raises(DataError, match=r"0 splits of .*config\.yaml are called 'mine'"):
        open_data(open_runs([f"x={path}", str(runs[1].path)])[0], [])
    with pytest.raises(ConfigError, match="unknown"):
        open_data(runs[0], ["datasets.unified_vqa_binary.colour=red"])


def test_an_empty_score_file_shares_no_row(two):
    runs, _, _ = two
    runs[0].path.write_text("")
    with pytest.raises(DataError, match=r"no row was scored by all|empty"):
        join(runs)
