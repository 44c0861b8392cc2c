"""Scores of a run are those of this very corpus, or refused."""

import json
import re

import pytest

from lavis.common.errors import DataError
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery, Filter
from lavis.ui.browse.score_files import read_scores


def test_scores_of_a_filtering_run_take_the_place_of_the_records(corpus, world):
    records, dataset, _ = corpus
    path = world.folder / "result.jsonl"
    path.write_text('{"index": 1, "score": 0.5}\n{"index": 2, "score": 0.25}\n')
    cache = str(world.folder / "cache")
    scores = read_scores(str(path), dataset, cache_dir=cache)
    index = open_index(dataset, cache_dir=cache)
    index.use_scores(scores.values)
    rows = CorpusQuery(index).select(Filter(score=(0.2, None), order="lowest"))
    assert rows.tolist() == [2, 1]
    done = export_rows(dataset, rows, world.folder / "out.jsonl", scores=scores)
    exported = [json.loads(line) for line in done.path.read_text().splitlines()]
    assert exported == [{**records[2], "prediction": 0.25}, {**records[1], "prediction": 0.5}]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('{"index": 99, "score": 0.5}', "row 1: index 99 is no row of the corpus"),
        ('{"index": true, "score": 0.5}', "row 1: index True is no row"),
        ('{"index": 1}', "row 1: no 'score'"),
        ('{"index": 1, "score": 0.5}\n{"index": 1, "score": 0.25}', "row 2: index 1 comes twice"),
        ("{torn", "row 1: malformed line"),
        ("", "no scores in it"),
        ('{"index": 1, "instance": "cat-1", "score": 0.5}', "another corpus: row 1 is 'cat-1'"),
    ],
)
def test_a_file_of_other_scores_is_refused(corpus, world, lines, reason):
    path = world.folder / "result.jsonl"
    path.write_text(f"{lines}\n" if lines else "")
    with pytest.raises(DataError, match=re.escape(reason)):
        read_scores(str(path), corpus[1], cache_dir=str(world.folder / "cache"))


def test_scores_are_read_once_and_anew_for_a_changed_file(corpus, world, monkeypatch):
    from lavis.ui.browse import score_files

    read, cache = [], str(world.folder / "cache")
    real = score_files._values
    monkeypatch.setattr(score_files, "_values", lambda *a: read.append(1) or real(*a))
    path = world.folder / "result.jsonl"
    for score, reads in ((0.5, 1), (0.5, 1), (0.25, 2)):
        path.write_text(json.dumps({"index": 1, "instance": "test-1", "score": score}) + "\n")
        assert read_scores(str(path), corpus[1], cache_dir=cache).values[1] == score
        assert len(read) == reads
