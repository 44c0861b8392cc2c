"""The index finds what a plain scan finds; pages and exports are exact."""

import gzip
import json
import re
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_items import read_items
from odd_values import ODD, as_json, spoiled

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery, Filter, page_of, parse_words
from lavis.ui.browse.score_files import read_scores
from lavis.ui.label.judgements import content_key
from lavis.ui.shown import RecordViewer, open_corpus

WORDS = ["red", "blue", "cat", "dog", "café", "hat"]


def make_records(world, count=60):
    """Records whose words, scores, sources and regions follow from the number."""
    return [
        world.record(
            i,
            question=["what", WORDS[i % 6], WORDS[i // 6 % 6]],
            answer=["Yes"],
            rationale=["so"],
            region=[1, 2, 3][: i % 4],
            source=f"s{i % 3}",
            **({"prediction": i / 100} if i % 5 else {}),
        )
        for i in range(count)
    ]


@pytest.fixture
def corpus(world):
    records = make_records(world)
    records[7:7] = ["{torn", world.record(region=[9]), world.record(answer=...)]
    dataset = world.open(records)
    query = CorpusQuery(open_index(dataset, cache_dir=str(world.folder / "cache")))
    return records, dataset, query


def scan(records, keep):
    return [
        i
        for i, r in enumerate(records)
        if isinstance(r, dict) and r["region"] != [9] and "answer" in r and keep(r)
    ]


def test_bad_records_are_counted_and_left_out(corpus):
    records, _, query = corpus
    assert query.index.bad == 3 and len(query.index) == 63
    assert query.index.columns.reasons == {
        "malformed line": 1, "unknown region id": 1, "missing field": 1,
    }  # fmt: skip
    assert query.select(Filter()).tolist() == scan(records, lambda r: True)
    assert query.index.columns.sources == ["s0", "s1", "s2"]


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("red", lambda q: "red" in q),
        ("RED cat", lambda q: "red" in q and "cat" in q),
        ('"cat red"', lambda q: "cat red" in " ".join(q)),
        ("cafe", lambda q: "café" in q),
        ("ca*", lambda q: "cat" in q or "café" in q),
        ("red -cat", lambda q: "red" in q and "cat" not in q),
        ("-red", lambda q: "red" not in q),
        ('-"cat red"', lambda q: "cat red" not in " ".join(q)),
        ("nothing", lambda q: False),
        ("?!", lambda q: True),
    ],
)
def test_words(corpus, text, keep):
    records, _, query = corpus
    assert query.select(Filter(text=text)).tolist() == scan(records, lambda r: keep(r["question"]))


def test_words_of_every_script_are_whole(world):
    records = [
        world.record(i, question=[word], answer=["Yes"], rationale=["so"], region=[1])
        for i, word in enumerate(["कि", "की", "ผู้ชาย", "நாய்", "re\u0301sume\u0301"])
    ]
    query = CorpusQuery(open_index(world.open(records), cache_dir=str(world.folder / "cache")))
    for text, rows in [("कि", [0]), ("की", [1]), ("ผู้ชาย", [2]), ("ய", []), ("resume", [4])]:
        assert query.select(Filter(text=text)).tolist() == rows


def test_names_of_regions_are_found(corpus):
    records, _, query = corpus
    found = query.select(Filter(text="o2")).tolist()
    assert found == scan(records, lambda r: 2 in r["region"])


def test_numbers_and_sources(corpus):
    records, _, query = corpus
    found = query.select(Filter(score=(0.1, 0.4), regions=(1, 2), sources=("s0", "s2")))
    assert found.tolist() == scan(
        records,
        lambda r: (
            0.1 <= r.get("prediction", -1) <= 0.4
            and 1 <= len(r["region"]) <= 2
            and r["source"] != "s1"
        ),
    )
    assert query.select(Filter(sources=("gone",))).tolist() == []


def test_order(corpus):
    records, _, query = corpus
    high = query.select(Filter(order="highest")).tolist()
    scored = [records[i]["prediction"] for i in high if "prediction" in records[i]]
    assert scored == sorted(scored, reverse=True) and "prediction" not in records[high[-1]]
    low = query.select(Filter(order="lowest", score=(0.5, None))).tolist()
    assert [records[i]["prediction"] for i in low][:2] == [0.51, 0.52]
    shuffled = query.select(Filter(order="random")).tolist()
    assert shuffled != high and sorted(shuffled) == query.select(Filter()).tolist()


KEYS = {
    "file": lambda i, r: i,
    "regions": lambda i, r: len(r["region"]),
    "source": lambda i, r: r["source"],
    "length": lambda i, r: len(" ".join([*r["question"], "Answer: Yes Rationale: so"]).split()),
}


@pytest.mark.parametrize("column", KEYS)
def test_every_column_sorts_both_ways_and_equals_stay_in_file_order(world, column):
    records = make_records(world, 40)
    for i, one in enumerate(records):
        one["question"] = ["what"] * (1 + i % 7)
    dataset = world.open(records)
    query = CorpusQuery(open_index(dataset, cache_dir=str(world.folder / "cache")))
    keys = [KEYS[column](i, r) for i, r in enumerate(records)]
    up = query.select(Filter(order=column)).tolist()
    assert up == sorted(range(40), key=lambda i: keys[i])
    down = query.select(Filter(order=f"{column}-desc")).tolist()
    assert down == sorted(range(40), key=lambda i: keys[i], reverse=True)
    assert up != down


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.one_of(st.text(max_size=30), st.text('"*-()^:+ AND NOT{}red\0', max_size=20)))
def test_no_text_is_an_error(corpus, text):
    rows = corpus[2].select(Filter(text=text))
    assert set(rows.tolist()) <= set(corpus[2].select(Filter()).tolist())


def test_words_are_quoted_for_the_index():
    assert parse_words('a "b c" -d e* NOT "x') == (
        '"a" AND "b c" AND "e"* AND "NOT" AND "x"',
        ['"d"'],
    )
    assert parse_words("- * ()") == ("", [])


def test_filters_are_checked():
    with pytest.raises(ConfigError, match=r"score from 0\.9 to 0\.1: the first number is greater"):
        Filter(score=(0.9, 0.1))
    assert Filter(order="highest").order == "highest"
    with pytest.raises(ConfigError, match=r"use one of file, score, .*, random"):
        Filter(order="best")


def test_pages():
    rows = np.arange(25)
    assert page_of(rows, 3, 12).rows == [24]
    assert page_of(rows, 99, 12) == page_of(rows, 3, 12)
    assert page_of(rows, -1, 12).number == 1
    assert page_of(rows[:0], 1, 12) == page_of(rows[:0], 5, 12)


def test_an_export_is_the_lines_themselves(corpus, world):
    _, dataset, query = corpus
    rows = query.select(Filter(text="red"))
    done = export_rows(dataset, rows, world.folder / "out" / "red.jsonl")
    lines = (world.folder / "corpus.jsonl").read_bytes().splitlines(keepends=True)
    assert done.path.read_bytes() == b"".join(lines[i] for i in rows)
    assert (done.written, done.skipped) == (len(rows), 0)
    assert [p.name for p in done.path.parent.iterdir()] == ["red.jsonl"]
    with pytest.raises(DataError, match="is part of the corpus"):
        export_rows(dataset, rows, world.folder / "corpus.jsonl")


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


def test_two_runs_are_compared(corpus, world):
    _, _, query = corpus
    rows = len(query.index)
    first, second = np.full(rows, np.nan, np.float32), np.full(rows, np.nan, np.float32)
    first[[0, 1, 2, 3]] = 0.5, 0.9, 0.2, 0.4
    second[[0, 1, 2]] = 0.6, 0.1, 0.2
    query.index.use_scores(first, second)
    query = CorpusQuery(query.index)
    for order, expected in {
        "difference": [1, 2, 0],
        "difference-desc": [0, 2, 1],
        "distance": [2, 0, 1],
        "distance-desc": [1, 0, 2],
        "other": [1, 2, 0],
    }.items():
        assert query.select(Filter(order=order)).tolist()[:3] == expected, order
    assert query.select(Filter(difference=(0.05, None))).tolist() == [0]
    assert query.select(Filter(difference=(None, 0))).tolist() == [1, 2]


def test_comparing_needs_two_runs(corpus):
    for wanted in (Filter(order="difference"), Filter(difference=(0, None))):
        with pytest.raises(ConfigError, match="there are no second scores; name a file with"):
            corpus[2].select(wanted)


@pytest.mark.parametrize("form", ["gz", "zst", "parquet"])
def test_other_forms_give_the_same(world, form):
    records = make_records(world, 12)
    plain = world.write(records)
    path = f"{plain}.{form}"
    if form == "gz":
        with gzip.open(path, "wb") as file:
            file.write(open(plain, "rb").read())
    elif form == "zst":
        with pa.CompressedOutputStream(path, "zstd") as file:
            file.write(open(plain, "rb").read())
    else:
        columns = {
            key: [r.get(key) if isinstance(r.get(key), (str, float, type(None)))
                  else json.dumps(r[key]) for r in records]
            for key in sorted({k for r in records for k in r})
        }  # fmt: skip
        pq.write_table(pa.table(columns), path)
    cache = str(world.folder / "cache")
    dataset = open_corpus([path], str(world.root), cache_dir=cache)
    query = CorpusQuery(open_index(dataset, cache_dir=cache))
    rows = query.select(Filter(text="red", regions=(1, None)))
    assert rows.tolist() == scan(records, lambda r: "red" in r["question"] and r["region"])
    done = export_rows(dataset, rows, world.folder / "out.jsonl")
    exported = [json.loads(line) for line in done.path.read_text().splitlines()]
    assert exported == [records[i] for i in rows]


def test_other_processes_read_the_same_index(world):
    dataset = world.open(make_records(world, 50) * 90)  # more than two chunks
    found = []
    for workers in (0, 2):
        index = open_index(dataset, workers=workers, cache_dir=str(world.folder / f"c{workers}"))
        found.append((index.columns, CorpusQuery(index).select(Filter(text="red hat"))))
    (one, rows), (other, same) = found
    for name in ("score", "regions", "source", "length"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.sources == other.sources and rows.tolist() == same.tolist() and len(rows)


def test_the_index_is_made_once_and_anew_for_a_changed_file(world):
    cache, seen = str(world.folder / "cache"), []
    options = {"cache_dir": cache, "tick": seen.append}
    open_index(world.open(make_records(world, 5)), **options)
    open_index(world.open(make_records(world, 5), "other.jsonl"), **options)
    assert seen == [5, 5]
    dataset = open_corpus([str(world.folder / "other.jsonl")], str(world.root))
    assert len(open_index(dataset, **options)) == 5 and seen == [5, 5]
    open_index(world.open(make_records(world, 6), "other.jsonl"), **options)
    assert seen == [5, 5, 6]
    assert (
        subprocess.run(["ls", cache], capture_output=True, text=True).stdout.count("sqlite\n") == 3
    )


@settings(ODD, max_examples=15)
@given(data=st.data())
def test_odd_records_are_indexed_shown_or_refused(world, data):
    good = {**world.record(), "prediction": 0.5}
    records = [good, *(data.draw(spoiled(good)) for _ in range(12))]
    dataset = world.open([as_json(record) for record in records])
    index = open_index(dataset, cache_dir=str(world.folder / "cache"))
    assert len(index) == 13 and index.bad == sum(index.columns.reasons.values())
    viewer = RecordViewer(dataset)
    for row in range(13):
        try:
            shown = viewer.show(row)
            content_key(dataset.record(row))
            assert shown.parts
        except RecordError as error:
            assert row and error.reason
    items = read_items(dataset)
    assert items.all()[0].index == 0
    assert len(items.all()) + len(items.rejects) + items.duplicates == 13
