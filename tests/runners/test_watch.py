"""Whether a row was scored is known after its task has read the rows, however often it did."""

from __future__ import annotations

import pytest

from lavis.common.storage.journal import Journal, JournalReader
from lavis.runners.watch import WatchedRows

REJECTS = [{"reject": "missing image: a"}, {"reject": "missing image: b"}, {"reject": "no region"}]


@pytest.mark.parametrize("times", [1, 2])
def test_without_a_score_the_reasons_are_counted_once(tmp_path, times):
    with Journal(tmp_path, {}) as journal:
        journal.append(0, list(enumerate(REJECTS)))
    with JournalReader(tmp_path, {}) as reader:
        rows = WatchedRows(reader)
        for _ in range(times):
            assert [payload for _, payload in rows.iterate()] == REJECTS
        assert rows.nothing("test") == (
            "test: none of 3 records could be scored: missing image (2), no region (1); "
            "see rejects.jsonl"
        )


def test_one_score_is_enough(tmp_path):
    with Journal(tmp_path, {}) as journal:
        journal.append(0, list(enumerate([*REJECTS, {"score": 0.5}])))
    with JournalReader(tmp_path, {}) as reader:
        rows = WatchedRows(reader)
        assert len(list(rows.iterate_raw())) == 4
        assert rows.nothing("test") is None
