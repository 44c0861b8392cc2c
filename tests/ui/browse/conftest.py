"""A corpus of 63 rows, three of them bad, with its index."""

import pytest
from browse_records import make_records

from lavis.ui.browse.index import open_index
from lavis.ui.browse.query import CorpusQuery


@pytest.fixture
def corpus(world):
    records = make_records(world)
    records[7:7] = ["{torn", world.record(region=[9]), world.record(answer=...)]
    dataset = world.open(records)
    query = CorpusQuery(open_index(dataset, cache_dir=str(world.folder / "cache")))
    return records, dataset, query
