"""Every filter and order selects what a plain scan selects."""

import numpy as np
import pytest
from browse_records import make_records, scan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavis.common.errors import ConfigError
from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery, Filter, page_of, parse_words


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
