"""Plans: each row in one unit, each image in one unit, from the data alone."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_data import PlainData

from lavis.datasets.rows import Row
from lavis.tasks.planning import load_or_make, make_plan

texts = st.text(alphabet="ab ", max_size=60)
pairs = st.none() | st.tuples(st.sampled_from("pqrstuv"), texts)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(pairs, max_size=40), batch_size=st.integers(1, 9))
def test_each_row_and_each_image_is_in_exactly_one_unit(list_dataset, rows, batch_size):
    plan = make_plan(list_dataset(rows), batch_size)
    assert sorted(plan.order.tolist()) == list(range(len(rows)))
    units_of_image: dict[str, set[int]] = {}
    for unit in range(len(plan)):
        numbers = plan.rows(unit).tolist()
        images = {rows[n][0] if rows[n] else f"bad {n}" for n in numbers}
        assert 0 < len(numbers) <= batch_size or len(images) == 1
        for image in images:
            units_of_image.setdefault(image, set()).add(unit)
    assert all(len(units) == 1 for units in units_of_image.values())


def test_units_go_from_long_texts_to_short_ones(list_dataset):
    lengths = [5, 100, 40, 99, 41, 6, 250, 249]
    rows = [(f"image {n}", "x" * length) for n, length in enumerate(lengths)]
    plan = make_plan(list_dataset(rows), 2)
    assert [plan.rows(u).tolist() for u in range(len(plan))] == [[6, 7], [1, 3], [2, 4], [0, 5]]


def test_candidates_of_a_row_count_as_texts():
    class Candidates(PlainData):
        def __len__(self) -> int:
            return 4

        def row(self, index: int) -> Row:
            return Row(index, f"image {index}", "a", {}, texts=("a", "b", "c"))

    plan = make_plan(Candidates(), 6)
    assert [plan.rows(u).tolist() for u in range(len(plan))] == [[0, 1], [2, 3]]


def test_a_saved_plan_is_used_for_the_same_data_and_size_only(list_dataset, tmp_path, caplog):
    path = tmp_path / "plans" / "test.npz"
    dataset = list_dataset([("p", "abc"), ("q", "abcd"), None])
    plan = load_or_make(path, dataset, 2)

    class Unreadable(list_dataset):
        def row(self, index, rng=None):
            raise AssertionError("the saved plan should have been used")

    again = load_or_make(path, Unreadable(dataset.pairs), 2)
    np.testing.assert_array_equal(again.order, plan.order)
    np.testing.assert_array_equal(again.offsets, plan.offsets)
    assert len(load_or_make(path, dataset, 1)) == 3
    assert len(load_or_make(path, list_dataset([("p", "abc")]), 1)) == 1
    with caplog.at_level(logging.WARNING):
        path.write_bytes(path.read_bytes()[:100])
        assert len(load_or_make(path, dataset, 1)) == 3
    assert "cannot be read" in caplog.text
    assert [p.name for p in path.parent.iterdir()] == ["test.npz"]


def test_planning_keeps_few_bytes_a_row():
    class Many(PlainData):
        def __len__(self) -> int:
            return 20_000

        def row(self, index: int) -> Row:
            return Row(index, f"image {index // 4}", "x" * (index % 190), {})

    tracemalloc.start()
    plan = make_plan(Many(), 32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan) == 625
    assert peak < 20_000 * 150  # a list of the rows would take several times this
