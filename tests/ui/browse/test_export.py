"""An export is the lines themselves."""

import pytest

from lavis.common.errors import DataError
from lavis.ui.browse.export import export_rows
from lavis.ui.browse.query import Filter


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
