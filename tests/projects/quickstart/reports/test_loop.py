"""The table and the page of the loop: means over seeds, intervals over scenes."""

import json

import numpy as np
import pytest
from page_checks import check_report

from projects.quickstart.reports import loop


def test_the_table_holds_means_over_seeds_and_their_difference(tmp_path):
    def answer(folder, rights):
        result = tmp_path / folder / "result"
        result.mkdir(parents=True)
        rows = [
            {"instance": f"s{i}-0-kind", "group": "kind", "label": 0, "prediction": int(not right)}
            for i, right in enumerate(rights)
        ]
        (result / "test_epoch0.jsonl").write_text("\n".join(map(json.dumps, rows)))

    answer("zero_shot", [1, 0, 0, 0])
    answer("unfiltered_0", [1, 1, 0, 0])
    answer("filtered_0", [1, 1, 1, 1])
    answer("filtered_1", [1, 1, 1, 0])
    corpus = {"records": 4, "true": 2}
    corpora = {"generated": corpus, "filtered": corpus, "sample": corpus}
    (tmp_path / "corpora.json").write_text(json.dumps(corpora))
    report = loop.summarize(tmp_path)
    assert report["students"]["filtered"]["value"] == 87.5
    assert report["students"]["filtered"]["seeds"]["1"]["value"] == 75
    assert report["filtered minus unfiltered"]["value"] == 37.5
    # 4 draws of (1, 1, 1, 1/2): P(all are 1/2) = .004, P(three or more are) = .051
    assert report["students"]["filtered"]["interval"] == [62.5, 100.0]
    assert report["students"]["filtered"]["seeds"]["1"]["interval"] == [25.0, 100.0]
    rows = loop.table(report)
    assert [row[1] for row in rows] == [
        "right, %",
        "25.0",
        "25.0",
        "50.0",
        "87.5",
        "100.0",
        "75.0",
        "37.5",
    ]


def test_students_that_were_asked_different_questions_are_not_compared(tmp_path):
    (tmp_path / "corpora.json").write_text("{}")
    for folder, count in (("zero_shot", 3), ("unfiltered_0", 3), ("filtered_0", 2)):
        rows = [
            {"instance": f"s{i}-0-kind", "group": "kind", "label": 0, "prediction": 0}
            for i in range(count)
        ]
        (tmp_path / folder / "result").mkdir(parents=True)
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / folder / "result" / "test_epoch0.jsonl").write_text(text)
    with pytest.raises(SystemExit, match="asked different questions; run scripts/close_loop"):
        loop.summarize(tmp_path)


def test_intervals_are_over_scenes():
    """Sixteen scenes, eight of them right: Binomial(16, 1/2), P(<= 3) = .011, P(<= 4) = .038."""
    for per_scene in (1, 5):  # questions of a scene are drawn together: more of them tell no more
        names = [f"scene-{n}-{q}-kind" for n in range(16) for q in range(per_scene)]
        rights = np.array([n % 2 for n in range(16) for _ in range(per_scene)], dtype=float)
        weights = loop.resample(names)
        assert weights.shape == (loop.RESAMPLES, len(names))
        found = loop.with_interval(rights, weights)
        assert found == {"value": 50.0, "interval": [25.0, 75.0]}
    assert (loop.resample(names) == weights).all()
    assert (loop.resample(names, seed=1) != weights).any()


def test_scenes_with_more_questions_weigh_more():
    names = ["a-0-kind", "a-1-kind", "a-2-kind", "b-0-kind"]
    weights = np.array([[2, 2, 2, 0], [1, 1, 1, 1], [0, 0, 0, 2]])
    assert set(map(tuple, loop.resample(names))) == set(map(tuple, weights))
    found = loop.with_interval(np.array([1.0, 1.0, 1.0, 0.0]), weights[[1, 1]])
    assert found == {"value": 75.0, "interval": [75.0, 75.0]}


def test_the_page_fits_and_can_be_read(browser, tmp_path):
    interval = {"value": 87.5, "interval": [62.5, 100.0]}
    kinds = {kind: 87.5 for kind in ("colour", "kind", "object", "relation")}
    students = {
        name: {**interval, "kinds": kinds, "seeds": {str(seed): interval for seed in range(3)}}
        for name in ("zero_shot", "unfiltered", "filtered")
    }
    corpus = {"records": 282, "true": 271}
    corpora = {"generated": corpus, "filtered": corpus, "sample": corpus}
    report = {"questions": 747, "chance": 25.0, "corpora": corpora, "students": students,
              "filtered minus unfiltered": interval}  # fmt: skip
    page = tmp_path / "loop.html"
    page.write_text(loop.page(loop.table(report), report))
    check_report(browser, page)
