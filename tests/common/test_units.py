"""The loop over units: what is left, what is journaled, and what stops it."""

import numpy as np
import pytest
import torch

from lavis.common.dist import World
from lavis.common.errors import ConfigError
from lavis.common.storage.inputs import Input, Watch
from lavis.common.storage.journal import Journal, JournalReader, finished
from lavis.common.units import UnitResult, changed_inputs, run_units, units_left

JOB = {"job": "test"}


class Full(Exception):
    """The disk, say."""


def world(rank=0, size=1):
    return World(rank, size, torch.device("cpu"))


def run(folder, results, **options):
    left = units_left(6, finished(folder, JOB))
    with Journal(folder, JOB, start=left.start) as journal:
        options = {"name": "job", "units": 6, "left": 6, "total": 6, **options}
        return left, run_units(results, journal, world(), **options)


def test_a_stopped_job_keeps_what_is_finished_and_goes_on(tmp_path):
    def broken():
        yield UnitResult(0, [(0, {"v": 0})])
        yield UnitResult(2, [(2, {"v": 2})], again=True)
        raise Full("no room")

    left, stop = run(tmp_path, broken(), stops=(Full,))
    assert left.units.tolist() == [0, 1, 2, 3, 4, 5] and str(stop) == "no room"
    with pytest.raises(Full):
        run(tmp_path, broken())
    before = finished(tmp_path, JOB)
    left = units_left(4, before, before.again())
    assert (left.units.tolist(), left.start) == ([1, 2, 3], 3)
    assert left.of_rank(world(1, 2)) == [2]
    assert run(tmp_path, (UnitResult(u, [(u, {"v": 9})]) for u in (1, 2)))[1] is None
    with JournalReader(tmp_path, JOB) as reader:
        assert [(row, payload["v"]) for row, payload in reader.iterate()] == [
            (0, 0),
            (1, 9),
            (2, 9),
        ]
    assert not finished(tmp_path, JOB).again()


def test_units_of_changed_files_are_told_and_moved_folders_refused(tmp_path):
    places = [tmp_path / name for name in ("here", "there")]
    for place in places:
        place.mkdir()
        (place / "a.txt").write_text("one")
    watch = Watch([str(places[0])])
    watch.add(Input(str(places[0] / "a.txt")))
    with Journal(tmp_path / "j", JOB, places=[str(places[0])]) as journal:
        journal.append(5, [(0, {})], watch.notes())

    def changed(place):
        before = finished(tmp_path / "j", JOB)
        options = {"folder": tmp_path / "j", "what": "words", "beat": lambda: None}
        return [one.unit for one in changed_inputs(before, [str(place)], **options)]

    assert changed(places[0]) == changed(places[1]) == []  # the same bytes
    for place in places:
        (place / "a.txt").write_text("two")
    assert changed(places[0]) == [5]
    with pytest.raises(ConfigError, match=r"these words are of files in .*here; .*first: a.txt"):
        changed(places[1])


def test_units_left_are_numbers_that_numpy_sorts():
    assert units_left(0, finished("nowhere", JOB)).units.dtype == np.int64
