"""Counts beside a selection equal those of a plain scan, for every filter."""

import numpy as np
import pytest

from lavis.ui.browse.facets import BINS, CELLS, FacetCounter
from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery, Filter

SCORES = [0.0, 0.1, 0.26, 0.5, 0.5, 0.74, 0.99, 1.0, None, None]


@pytest.fixture
def query(world):
    records = [
        world.record(
            i,
            question=["what", "red" if i % 2 else "blue"],
            source=f"s{i % 3}",
            **({} if score is None else {"prediction": score}),
        )
        for i, score in enumerate(SCORES)
    ]
    dataset = world.open([*records, "{torn"])
    return CorpusQuery(open_index(dataset, cache_dir=str(world.folder / "cache")))


def test_a_histogram_counts_what_the_other_bounds_leave(query):
    histogram = FacetCounter(query).count(Filter(score=(0.25, 0.75))).histogram
    assert (histogram.low, histogram.high, histogram.unscored) == (0.0, 1.0, 2)
    assert (sum(histogram.counts), sum(histogram.chosen)) == (8, 4)
    filled = {i: n for i, n in enumerate(histogram.counts) if n}
    assert filled == {0: 1, 4: 1, 10: 1, 20: 2, 29: 1, 39: 2}  # 0.99 and 1.0: the last bin
    assert {i: n for i, n in enumerate(histogram.chosen) if n} == {10: 1, 20: 2, 29: 1}
    assert [histogram.edge(i) for i in (0, 10, BINS)] == [0.0, 0.25, 1.0]
    red = FacetCounter(query).count(Filter(text="red", sources=("s1",))).histogram
    rows = [i for i in range(10) if i % 2 and i % 3 == 1]
    assert sum(red.counts) == sum(SCORES[i] is not None for i in rows)


def test_sources_are_counted_with_all_but_themselves(query):
    counter = FacetCounter(query)
    assert counter.count(Filter()).sources == [("s0", 4), ("s1", 3), ("s2", 3)]
    asked = Filter(sources=("s1",), score=(0.5, None), text="blue")
    rows = [i for i in range(0, 10, 2) if (SCORES[i] or 0) >= 0.5]
    expected = {f"s{k}": sum(i % 3 == k for i in rows) for k in range(3)}
    assert dict(counter.count(asked).sources) == expected
    assert dict(counter.count(asked).sources) == expected  # kept


def test_a_bin_brushed_holds_what_its_bar_counts(query):
    """The bounds that the page's script sends for a bar select what the bar stands for."""
    counter = FacetCounter(query)
    everything = counter.count(Filter()).histogram
    for place, count in enumerate(everything.counts[:-1]):
        low, high = everything.edge(place), everything.edge(place + 1)
        rows = query.select(Filter(score=(low, float(np.nextafter(np.float32(high), 0)))))
        assert len(rows) == count, place


def test_scores_beyond_0_to_1_and_none_at_all(world):
    records = [world.record(i, prediction=value) for i, value in enumerate((-3.0, 7.0, 3e38))]
    index = open_index(world.open(records), cache_dir=str(world.folder / "cache"))
    histogram = FacetCounter(CorpusQuery(index)).count(Filter()).histogram
    assert histogram.low == -3 and histogram.high == pytest.approx(3e38)
    assert histogram.counts[0] == 2 and histogram.counts[-1] == 1
    one = open_index(world.open([world.record(0, prediction=5)], "b.jsonl"))
    histogram = FacetCounter(CorpusQuery(one)).count(Filter()).histogram
    assert (histogram.low, histogram.high, sum(histogram.counts)) == (4.5, 5.5, 1)
    none = open_index(world.open([world.record(0)], "c.jsonl"))
    facets = FacetCounter(CorpusQuery(none)).count(Filter())
    assert facets.histogram is None and facets.comparison is None


def test_two_runs_side_by_side(query):
    first = query.index.columns.score
    second = first.copy()
    second[:3] = 1.0, 0.1, 0.06
    second[7] = np.nan
    query.index.use_scores(None, second)
    found = FacetCounter(query).count(Filter()).comparison
    assert (found.rows, found.higher, found.lower) == (7, 1, 1)
    assert found.mean == pytest.approx((1.0 - 0.2) / 7, abs=1e-6)
    a = np.array(SCORES[:7])
    b = np.array([1.0, 0.1, 0.06, *SCORES[3:7]])
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    assert (0, CELLS - 1, 1) in found.cells and sum(n for *_, n in found.cells) == 7
    assert FacetCounter(query).count(Filter(sources=("gone",))).comparison.mean is None
