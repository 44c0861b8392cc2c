"""Values of records that could be read in two ways, or in none."""

import pytest

from lavis.common.errors import RecordError
from lavis.datasets.lck.record import check_tokens, read_references


def test_two_different_regions_of_one_id_are_refused():
    entries = [{"name": name, "boxes": [[0, 0, 1, 1]]} for name in ("1", 1)]
    assert list(read_references({"references": [entries[0], entries[0]]})) == [1]
    for references in (
        [entries[0], {**entries[0], "boxes": [[0, 0, 2, 2]]}],
        {"1": entries[0], "01": {"boxes": [[0, 0, 2, 2]]}},
    ):
        with pytest.raises(RecordError, match="duplicate region: references holds two of id 1"):
            read_references({"references": references})


@pytest.mark.parametrize("word", [float("nan"), float("inf")])
def test_what_json_has_no_number_for_is_no_word(word):
    with pytest.raises(RecordError, match="which is no word"):
        check_tokens(["a", word], "question")
