"""Which files a pattern names, and in what order their rows come."""

import pytest

from lavis.common.errors import DataError
from lavis.datasets.files.formats import expand_paths, open_records


def test_ranges_and_patterns_are_written_out_in_order(tmp_path):
    for number in range(3):
        (tmp_path / f"s-{number:03d}.jsonl").write_text(f'{{"n": {number}}}\n')
    names = [str(tmp_path / f"s-{number:03d}.jsonl") for number in range(3)]
    assert expand_paths([str(tmp_path / "s-{000..002}.jsonl")]) == names
    assert expand_paths([str(tmp_path / "s-*.jsonl")]) == names
    store = open_records([names[2], names[0]])
    assert [store.read(row)["n"] for row in range(len(store))] == [2, 0]
    with pytest.raises(DataError, match="named twice"):
        expand_paths([names[0], str(tmp_path / "s-*.jsonl")])
