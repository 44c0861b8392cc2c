"""Token lists: words and lists of region ids, and what is neither."""

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.lck.tokens import (
    check_tokens,
    has_empty_rationale,
    mentioned,
    read_region_ids,
    shown,
)


@pytest.mark.parametrize("word", [float("nan"), float("inf")])
def test_what_json_has_no_number_for_is_no_word(word):
    with pytest.raises(RecordError, match="which is no word"):
        check_tokens(["a", word], "question")


def test_ids_are_numbers_in_order_of_first_mention():
    tokens = check_tokens(["is", ["3", 1], "near", [3]], "question")
    assert tokens == ["is", [3, 1], "near", [3]]
    assert mentioned(tokens) == [3, 1]
    assert read_region_ids({"region": ["2", 0]}, "region") == [2, 0]
    with pytest.raises(RecordError, match=r"region id 1\.5 is not a whole number"):
        read_region_ids({"region": [1.5]}, "region")


@pytest.mark.parametrize(
    ("rationale", "is_empty"),
    [([" "], True), ([[7]], True), ([[1]], False), (["so"], False), ("so", False), ([None], False)],
)
def test_a_rationale_is_empty_without_a_word_or_a_region_of_the_record(rationale, is_empty):
    record = {"question": ["who"], "region": [1], "rationale": rationale}
    assert has_empty_rationale(record) is is_empty


def test_a_value_is_shown_short():
    assert shown("x" * 100) == "'" + "x" * 56 + "..."
