"""Lists of a benchmark's record."""

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.benchmarks.question import list_of


@pytest.mark.parametrize("record", [{}, {"x": []}, {"x": "abc"}])
def test_a_list_is_there_and_holds_something(record):
    with pytest.raises(RecordError, match="missing or empty list: x"):
        list_of(record, "x")
    assert list_of({"x": [1]}, "x") == [1]
