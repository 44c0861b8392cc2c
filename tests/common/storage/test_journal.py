"""Journal: every row exactly once, in order, whatever was killed where."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.common.errors import ConfigError
from lavis.common.storage.journal import (
    CommittedUnit,
    Journal,
    JournalReader,
    _OffsetTable,
    finished,
    scan_segment,
)

SEED = {"run": {"seed": 1}}


def payload(row: int) -> dict:
    return {"text": f"row {row} é\n\"'", "score": row / 7}


def rows_of(units: list[list[int]], unit: int) -> list[tuple[int, dict]]:
    return [(row, payload(row)) for row in units[unit]]


@st.composite
def jobs(draw):
    """Units over shuffled rows, and starts that each finish some units and are cut at a byte."""
    count = draw(st.integers(1, 30))
    order = draw(st.permutations(range(count)))
    cuts = sorted(draw(st.sets(st.integers(1, count), max_size=6)) | {0, count})
    units = [list(order[a:b]) for a, b in itertools.pairwise(cuts)]
    start = st.tuples(
        st.integers(0, 3),  # rank
        st.lists(st.integers(0, len(units) - 1), max_size=8),  # units, also twice
        st.none() | st.floats(0, 1),  # where the segment is cut
    )
    return units, draw(st.lists(start, max_size=4))


@settings(max_examples=60, deadline=None)
@given(job=jobs())
def test_any_interleaving_and_any_cut_gives_each_row_once_and_in_order(job, tmp_path_factory):
    units, starts = job
    folder = tmp_path_factory.mktemp("journal")
    for rank, chosen, cut in starts:
        known = set(folder.glob("*.jsonl"))
        with Journal(folder, SEED, rank) as journal:
            for unit in chosen:  # not asking `done`: two ranks may finish the same unit
                journal.append(unit, rows_of(units, unit))
        for path in set(folder.glob("*.jsonl")) - known:
            if cut is not None:
                data = path.read_bytes()
                path.write_bytes(data[: int(cut * len(data))])
    finished = finished_units(folder)
    with Journal(folder, SEED, 9) as journal:
        assert journal.done_units().tolist() == sorted(finished)
        for unit in set(range(len(units))) - finished:
            journal.append(unit, rows_of(units, unit))
    reader = JournalReader(folder, SEED)
    total = sum(len(rows) for rows in units)
    assert list(reader.iterate()) == [(row, payload(row)) for row in range(total)]
    assert (len(reader), reader.units) == (total, len(units))
    reader.close()


def finished_units(folder: Path) -> set[int]:
    """The plain reading of the format: whole commit lines below a whole header."""
    found = set()
    for path in folder.glob("*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True)[1:]:
            if line.startswith(b'{"unit"') and line.endswith(b"\n"):
                found.add(json.loads(line)["unit"])
    return found


def test_a_segment_cut_at_every_byte_never_yields_a_part_of_a_unit(tmp_path):
    units = [[2, 0], [1], [3, 4, 5]]
    with Journal(tmp_path / "whole", SEED) as journal:
        for unit in range(3):
            journal.append(unit, rows_of(units, unit))
    (segment,) = (tmp_path / "whole").glob("*.jsonl")
    data = segment.read_bytes()
    cut_folder = tmp_path / "cut"
    cut_folder.mkdir()
    counts = []
    for end in range(len(data) + 1):
        (cut_folder / "a.jsonl").write_bytes(data[:end])
        with JournalReader(cut_folder, SEED) as reader:
            rows = list(reader.iterate())
        counts.append(reader.units)
        assert rows == [(r, payload(r)) for r in sorted(itertools.chain(*units[: reader.units]))]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-2:] == [2, 3]


def test_a_changed_byte_loses_its_unit_only(tmp_path):
    units = [[0, 1], [2, 3]]
    with Journal(tmp_path, SEED) as journal:
        journal.append(0, rows_of(units, 0))
        journal.append(1, rows_of(units, 1))
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"row 1", b"row 7"))
    assert [unit.unit for unit in scan_segment(segment)] == [1]
    assert [row for row, _ in JournalReader(tmp_path, SEED).iterate()] == [2, 3]


def test_a_unit_done_again_counts_as_it_was_last_whatever_the_clocks_say(tmp_path, monkeypatch):
    clock = iter([2_000_000_000, 1_000_000_000])  # the second host's clock is behind
    monkeypatch.setattr("lavis.common.storage.journal.time.time_ns", lambda: next(clock))
    for score in (0.25, 0.75):
        with Journal(tmp_path, SEED, rank=1) as journal:
            journal.append(0, [(0, {"score": score}), (1, {"score": score})])
    assert list(JournalReader(tmp_path, SEED).iterate()) == [
        (0, {"score": 0.75}),
        (1, {"score": 0.75}),
    ]


@pytest.mark.parametrize("later", [[], [4], [3, 4], [4, 9]], ids=str)
def test_rows_that_a_unit_done_again_no_longer_has_are_gone(tmp_path, later):
    before = {0: [0, 1, 2], 1: [3, 4, 5], 2: [6]}
    with Journal(tmp_path, SEED) as journal:
        for unit, rows in before.items():
            journal.append(unit, [(row, {"start": 1}) for row in rows], again=unit == 1)
    with Journal(tmp_path, SEED) as journal:
        journal.append(1, [(row, {"start": 2}) for row in later])
    expected = {row: {"start": 1} for row in [0, 1, 2, 6]}
    expected |= {row: {"start": 2} for row in later}
    with JournalReader(tmp_path, SEED) as reader:
        assert list(reader.iterate()) == sorted(expected.items())
        assert (len(reader), reader.units) == (len(expected), 3)


def test_a_unit_done_again_by_the_same_start_counts_as_it_was_last(tmp_path):
    with Journal(tmp_path, SEED) as journal:
        journal.append(0, [(0, {"n": 0}), (1, {"n": 0})])
        journal.append(0, [(1, {"n": 1})])
    with JournalReader(tmp_path, SEED) as reader:
        assert list(reader.iterate()) == [(1, {"n": 1})]


def test_inputs_of_a_unit_are_read_back_as_it_was_done_last(tmp_path):
    for state in (1, 2):
        with Journal(tmp_path, SEED, places=[f"/pictures/{state}"]) as journal:
            journal.append(0, [(0, {})], [[0, "a.jpg", [state], None]])
            journal.append(state, [(state, {})])
            journal.append(5, [(5, {"reject": "busy"})], [[0, "b.jpg", False, None]], state == 2)
    before = finished(tmp_path, SEED)
    assert sorted(before.units) == [0, 1, 2, 5] and before.again() == [5]
    assert before.next_start == 3
    assert list(before.noted()) == [(0, [[0, "a.jpg", [2], None]], ["/pictures/2"])]
    rows = list(JournalReader(tmp_path, SEED).iterate())
    assert [row for row, _ in rows] == [0, 1, 2, 5]


def test_a_changed_byte_in_the_inputs_loses_their_unit(tmp_path):
    with Journal(tmp_path, SEED) as journal:
        for unit in range(2):
            journal.append(unit, [(unit, {})], [[0, f"{unit}.jpg", [1, 2, 3], None]])
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"0.jpg", b"7.jpg"))
    assert list(finished(tmp_path, SEED).units) == [1]


def test_a_journal_of_another_form_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "old.jsonl").write_text('{"journal": 1, "rank": 0, "fingerprint": {}}\n')
    with pytest.raises(ConfigError, match=r"written in form 1 by another version.*choose another"):
        finished(tmp_path, SEED)


def test_rows_are_readable_before_the_writer_closes(tmp_path):
    journal = Journal(tmp_path, SEED)
    journal.append(4, [(0, {"a": 1})])  # a SIGKILL now must not lose this
    assert list(JournalReader(tmp_path, SEED).iterate_raw()) == [(0, b'{"a": 1}')]
    journal.close()


def test_another_fingerprint_is_refused_with_what_differs(tmp_path):
    ours = {"run": {"seed": 1, "batch_size_eval": 8}, "files": ["a"]}
    with Journal(tmp_path, ours) as journal:
        journal.append(0, [])
    theirs = {"run": {"seed": 2, "batch_size_eval": 8}, "files": ["a"], "amp": True}
    expected = (
        r"amp is absent there and true here, run\.seed is 1 there and 2 here\); "
        r"choose another run\.output_dir or delete"
    )
    for opened in (Journal, JournalReader):
        with pytest.raises(ConfigError, match=expected):
            opened(tmp_path, theirs)


def test_a_foreign_file_in_the_folder_is_refused(tmp_path):
    (tmp_path / "notes.jsonl").write_text('{"hello": 1}\n')
    with pytest.raises(ConfigError, match="no readable header"):
        Journal(tmp_path, SEED)


def test_a_start_that_finishes_nothing_leaves_no_file(tmp_path):
    Journal(tmp_path, SEED).close()
    assert list(tmp_path.iterdir()) == []
    assert list(JournalReader(tmp_path, SEED).iterate()) == []


def lines_of(folder: Path) -> list[list[dict | list]]:
    """The lines of every segment, by name."""
    paths = sorted(folder.glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def test_the_form_on_disk(tmp_path):
    note = [0, "a.jpg", [1, 2, 3], None]
    with Journal(tmp_path / "new" / "journal", SEED, 7, places=["/pictures"]) as journal:
        journal.append(3, [(5, {"text": "ä"}), (2, {})], [note])
        journal.append(4, [], again=True)
    with Journal(tmp_path / "new" / "journal", SEED) as journal:
        journal.append(0, [(1, {})])
    first, second = lines_of(tmp_path / "new" / "journal")
    header = {"journal": 2, "rank": 7, "start": 1, "places": ["/pictures"], "fingerprint": SEED}
    rows = b'[5, {"text": "\\u00e4"}]\n[2, {}]\n{"inputs": [[0, "a.jpg", [1, 2, 3], null]]}\n'
    assert first == [
        header,
        [5, {"text": "ä"}],
        [2, {}],
        {"inputs": [note]},
        {"unit": 3, "rows": 2, "crc32": zlib.crc32(rows)},
        {"unit": 4, "rows": 0, "crc32": 0, "again": True},
    ]
    assert second[0] == {**header, "rank": 0, "start": 2, "places": []}
    for path in (tmp_path / "new" / "journal").iterdir():
        pattern = r"00000[12]-\d{20}-rank0000[70]-[0-9a-f]{8}\.jsonl"
        assert re.fullmatch(pattern, path.name), path.name


def test_what_is_done_is_known_before_and_after(tmp_path):
    with Journal(tmp_path, SEED) as journal:
        journal.append(2, [(0, {})])
        journal.append(0, [(1, {})])
        assert journal.done_units().tolist() == [0, 2]
    with Journal(tmp_path, SEED) as journal:
        assert journal.done_units().tolist() == [0, 2]
    with Journal(tmp_path, SEED, start=9) as journal:  # rank 0 knows what is left
        assert journal.done_units().tolist() == [] and journal.done_units().dtype == "int64"
        journal.append(1, [(2, {})])
    assert finished(tmp_path, SEED).next_start == 10


def test_the_disk_is_asked_at_times_and_at_the_end(tmp_path, monkeypatch):
    synced, now = [], [100.0]
    monkeypatch.setattr("lavis.common.storage.journal.os.fsync", synced.append)
    monkeypatch.setattr("lavis.common.storage.journal.time.monotonic", lambda: now[0])
    journal = Journal(tmp_path, SEED)
    for moment, count in ((104.9, 0), (105.0, 1), (109.9, 1), (110.0, 2)):
        now[0] = moment
        journal.append(0, [(0, {})])
        assert len(synced) == count
    journal.close()
    journal.close()  # nothing is left to do
    assert len(synced) == 3


def test_many_segments_are_read_with_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr("lavis.common.storage.journal.MAX_OPEN_SEGMENTS", 2)
    for start in range(4):
        with Journal(tmp_path, SEED) as journal:
            journal.append(start, [(row, {"start": start}) for row in range(start, 16, 4)])
    reader = JournalReader(tmp_path, SEED)
    for row, found in reader.iterate():
        assert found == {"start": row % 4}
        assert len(reader._files) <= 2
    open_files = list(reader._files.values())
    assert len(open_files) == 2
    reader.close()
    assert all(file.closed for file in open_files) and not reader._files


def test_open_files_are_used_again_and_the_oldest_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr("lavis.common.storage.journal.MAX_OPEN_SEGMENTS", 2)
    for start in range(3):
        with Journal(tmp_path, SEED) as journal:
            journal.append(start, [(row, {}) for row in range(4 * start, 4 * start + 4)])
    opened = []
    with JournalReader(tmp_path, SEED) as reader:
        monkeypatch.setattr(
            "lavis.common.storage.journal.open",
            lambda *args, **options: opened.append(open(*args, **options)) or opened[-1],
            raising=False,
        )
        assert [row for row, _ in reader.iterate()] == list(range(12))
        assert list(reader._files) == [1, 2]
        assert [file.closed for file in opened] == [True, False, False]
    assert all(file.closed for file in opened)


def test_the_table_of_rows_doubles_when_it_is_full():
    table, sizes = _OffsetTable(), []
    for row in (5, 1023, 1024, 2047, 5000, 5001):
        table.add(0, CommittedUnit(row, [row], [7, 9]))
        sizes.append(len(table.lengths))
        assert (table.offsets[row], table.lengths[row]) == (7, 2)
    assert sizes == [1024, 1024, 2048, 2048, 5001, 10002]
    assert table.lengths.nbytes + table.segments.nbytes + table.offsets.nbytes == 16 * 10002
    table.add(0, CommittedUnit(9, [], [7]))
    assert table.lengths[:5].tolist() == [0] * 5


@pytest.mark.parametrize("rows", [[1023, 1024, 5000], [65535, 65536, 131072], [3]])
def test_rows_may_be_far_apart(tmp_path, rows):
    with Journal(tmp_path, SEED) as journal:
        for unit, row in enumerate(rows):
            journal.append(unit, [(row, {"row": row})])
    with JournalReader(tmp_path, SEED) as reader:
        assert list(reader.iterate()) == [(row, {"row": row}) for row in rows]
        assert len(reader) == reader.units == len(rows)
