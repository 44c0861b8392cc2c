"""Parts of the records that converters write."""

import pytest
from PIL import Image

from lavis.common.errors import RecordError
from lavis.datasets.lck.record import make_region
from lavis.datasets.unified.record import make_record, numbers_to_ids, person_of, scaled


def test_numbers_of_people_become_ids():
    assert numbers_to_ids("1 and 2's dog", 3) == [[0], "and", [1], "'s", "dog"]
    assert numbers_to_ids("meet 4 at 10:30, 2.", 3) == ["meet", "4", "at", "10:30,", [1], "."]


def test_a_record_holds_what_it_is_made_of_and_no_more():
    record = make_record(
        image="a.jpg",
        instance_id="1",
        question=["Who", "?"],
        candidates=[["I"], [[0]]],
        references={"0": {"boxes": [[0, 0, 4, 4]]}},
        size=(8, 6),
        label=1,
    )
    assert record["choices"] == [{"text_output": ["I"]}, {"text_output": [[0]]}]
    assert record["boxes_size"] == [8, 6] and record["label"] == 1 and "group" not in record
    with pytest.raises(RecordError, match="wrong label: 2 of 2 candidates"):
        make_record(image="a", instance_id="1", question=["Q"], candidates=[["a"], ["b"]], label=2)


@pytest.mark.parametrize(("word", "person"), [("2,", 2), ("3's", 3), ("$3", None), ("1.5", None)])
def test_a_whole_number_names_a_person(word, person):
    assert person_of(word) == person


def test_masks_are_scaled_to_the_file_with_their_boxes(tmp_path):
    Image.new("RGB", (12, 12)).save(tmp_path / "a.png")
    entry = {"boxes": [[1, 1, 5, 4]], "mask": {"size": [4, 6], "counts": "53:OJ"}}
    references, size = scaled({"0": entry}, (6, 4), tmp_path / "a.png")
    assert size == (12, 12) and references["0"]["boxes"] == [[2, 3, 10, 12]]
    region = make_region(0, references["0"])
    assert region.mask.size == (12, 12)
    assert region.mask.to_mask().sum() == 5 * 2 * 3
    assert scaled({"0": entry}, (12, 12), tmp_path / "a.png")[0] == {"0": entry}
