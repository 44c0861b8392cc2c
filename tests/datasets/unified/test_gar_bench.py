"""GAR-Bench-VQA: the record of an item by hand, and every damage with its reason."""

import json

import numpy as np
import pytest
from PIL import Image

from lavis.common.errors import RecordError
from lavis.common.regions.rle import Rle
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import ContrastiveConfig
from lavis.datasets.unified.gar_bench import GarBenchConverter, place_of, prompts_to_ids

FULL = {"size": [30, 40], "counts": [0, 1200]}


def masks():
    left, right = np.zeros((2, 30, 40), dtype=bool)
    left[5:15, 2:12], right[:, 20:34] = True, True
    return left, right


def convert_items(samples, converted, items, **options):
    path = samples.save("items.json", items)
    return converted(GarBenchConverter(annotations=path, **options))


def test_an_item_becomes_a_record_with_its_masks(samples, converted):
    found = converted(GarBenchConverter(annotations=samples.gar, image_root=samples.images))
    assert found.counts == {"items": 2, "records": 2, "rejected": 0, "reasons": {}}
    left, right = found.records[1]["references"].values()
    for region, mask in zip((left, right), masks(), strict=True):
        np.testing.assert_array_equal(Rle.of_coco(region["mask"]).to_mask(), mask)
    assert found.records[1] == {
        "image": "gar_bench/sa_2.png",
        "instance_id": "2",
        "references": {
            "0": {"boxes": [[2, 5, 12, 15]], "mask": left["mask"], "obj_guess": ""},
            "1": {"boxes": [[20, 0, 34, 30]], "mask": right["mask"], "obj_guess": ""},
        },
        "boxes_size": [40, 30],
        "text_input": ["Is", [1], "behind", "(", [0], ")?"],
        "answer_prefix": "Answer:",
        "choices": [{"text_output": ["yes,", [1], "is"]}, {"text_output": ["no"]}],
        "label": 0,
        "group": "relation",
    }
    assert found.records[0]["label"] == 1 and found.records[0]["group"] == "color"
    assert found.records[0]["choices"][1] == {"text_output": ["Light", "blue"]}


def test_masks_are_drawn_and_numbered_as_the_benchmark_numbers_them(samples, converted):
    found = converted(GarBenchConverter(annotations=samples.gar))
    config = ContrastiveConfig(
        region_mode="segms",
        vis_processor={"eval": {"name": "vlm_image", "shows": "marks"}},
        text_processor={"eval": {"name": "base"}},
        build_info={
            "annotations": {"test": {"storage": [str(found.output)]}},
            "images": {"storage": str(samples.images)},
        },
    )
    dataset = build_dataset("unified_contrastive", config, "test")
    row = dataset.row(1)
    assert row.all_parts[0]["question"] == "Is [1] behind ( [0] )?"
    assert row.all_parts[0]["answer"] == "yes, [1] is"
    assert row.fields["group"] == "relation" and row.fields["label"] == 0
    for region, mask in zip(row.drawing.drawn, masks(), strict=True):
        np.testing.assert_array_equal(region.mask.to_mask(), mask)
    assert [region.box for region in row.drawing.drawn] == [(2, 5, 12, 15), (20, 0, 34, 30)]


def spoiled(item, **changes):
    return {key: value for key, value in {**item, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": ...}, "missing field: image"),
        ({"image": "gone.png"}, "missing image: gone.png"),
        ({"type": ...}, "missing field: type"),
        ({"mask_rles": []}, "bad mask: the item has none"),
        ({"mask_rles": [None]}, "bad mask: region 0 has none"),
        ({"mask_rles": [7]}, "bad mask: region 0, 7, expected size and counts"),
        (
            {"mask_rles": [{"size": [30, 40], "counts": "n2:"}]},
            "bad mask: region 0, runs cover 104 pixels of 40 x 30",
        ),
        (
            {"mask_rles": [{"size": [30, 40], "counts": "n2 :"}]},
            "bad mask: region 0, 'n2 :' is no run lengths of COCO",
        ),
        ({"mask_rles": [{"size": [30, 40], "counts": [1200]}]}, "bad mask: region 0 is empty"),
        (
            {"mask_rles": [FULL, {"size": [2, 3], "counts": [0, 6]}]},
            "bad mask: one image has masks of 3 x 2, 40 x 30 pixels",
        ),
        (
            {"mask_rles": [{**FULL, "size": [40, 30]}]},
            "wrong size: the image has 40 x 30 pixels, its masks 30 x 40",
        ),
        ({"question": "Where is <Prompt1>?"}, "unknown region id: <Prompt1> of 1 masks"),
        ({"question": "Where is <PromptN>?"}, "unknown region id: 'Where is <PromptN>?'"),
        ({"question": ["a"]}, "wrong type: ['a'] is not a text"),
        ({"choices": ["A. <Prompt7>", "B. no"]}, "unknown region id: <Prompt7> of 1 masks"),
        ({"choices": ["A. red", "C. blue"]}, "wrong letter: choice 2 is 'C. blue'"),
        ({"choices": ["red", "blue"]}, "wrong letter: choice 1 is 'red'"),
        ({"choices": ["A. red", "B. "]}, "empty candidate: one has no words"),
        ({"choices": ["A. red"], "answer": "A"}, "too few candidates: 1"),
        ({"answer": "E"}, "wrong letter: the answer is 'E' of 4 choices"),
        ({"answer": "AB"}, "wrong letter: the answer is 'AB' of 4 choices"),
        ({"answer": ...}, "missing field: answer"),
    ],
)  # fmt: skip
def test_a_damaged_item_is_set_aside_alone(samples, converted, changes, reason):
    good = samples.of.gar[0]
    items = [spoiled(good, **changes), good, None]
    found = convert_items(samples, converted, items, image_root=samples.images)
    assert [record["instance_id"] for record in found.records] == ["2"]
    assert found.rejects[0]["reason"].startswith(reason), found.rejects
    assert [reject["item"] for reject in found.rejects] == [1, 3]


def test_a_smaller_copy_of_an_image_keeps_the_masks_frame(samples, converted):
    Image.new("RGB", (20, 15)).save(samples.images / "gar_bench" / "sa_1.png")
    found = converted(GarBenchConverter(annotations=samples.gar, image_root=samples.images))
    assert found.records[0]["boxes_size"] == [40, 30]
    found = converted(GarBenchConverter(annotations=samples.gar, image_prefix="elsewhere"))
    assert json.loads(found.output.read_text().splitlines()[0])["image"] == "elsewhere/sa_1.png"


def test_an_answer_may_be_a_small_letter_and_a_prompt_may_touch_words():
    assert place_of(" d ", 4) == 3
    assert prompts_to_ids("<Prompt0><Prompt10>'s", 11) == [[0], [10], "'s"]
    with pytest.raises(RecordError, match="<Prompt11> of 11"):
        prompts_to_ids("<Prompt11>", 11)
