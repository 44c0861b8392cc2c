"""The critic's data set: golden filter path, labels, numbering, options."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from lavis.common.errors import ConfigError, RecordError
from lavis.common.regions.rle import Rle
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import LckConfig
from lavis.datasets.lck.record import read_label
from lavis.datasets.lck.tokens import has_empty_rationale
from lavis.processors import load_processor

GOLDEN = Path(__file__).resolve().parents[2] / "fixtures" / "lskd"
EXPECTED = json.loads((GOLDEN / "filter" / "expected.json").read_text())["records"]
LABELS = json.loads((GOLDEN / "text" / "labels.json").read_text())


def golden_dataset(mapping=True, **options):
    folder = GOLDEN / "filter"
    source = {"storage": "records.jsonl"}
    if mapping:
        source["region_mapping"] = str(folder / "region_mapping.jsonl")
    config = LckConfig(
        build_info={
            "annotations": {"test": source},
            "images": {"storage": str(folder / "images"), "ann_root": str(folder)},
        },
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 28}},
        text_processor={"eval": {"name": "blip_unified_vqa", "prompt": ""}},
        **options,
    )
    return build_dataset("unified_vqa_binary", config, "test")


@pytest.mark.parametrize(
    ("mapping", "source"),
    [(True, "mapping_first"), (True, "references_first"), (False, "references_first")],
)
def test_the_golden_records_come_out_the_same(mapping, source):
    dataset = golden_dataset(mapping, region_source=source)
    pixels = load_file(GOLDEN / "filter" / "processed_images.safetensors")["pixel_values"]
    results = json.loads((GOLDEN / "filter" / "reference_result_list.json").read_text())
    assert len(dataset) == len(EXPECTED) == len(pixels)
    for index, expected in enumerate(EXPECTED):
        row = dataset.row(index)
        assert row.text == expected["text"]
        order = [str(region.region_id) for region in row.drawing.regions]
        assert order == [str(i) for i in expected["regions_in_drawing_and_tag_order"]]
        assert len(row.drawing.drawn) == expected["number_drawn"]
        assert [r.color_id for r in row.drawing.drawn] == list(range(expected["number_drawn"]))
        drawn = dataset.drawn_image(row)
        digest = hashlib.sha256(drawn.tobytes()).hexdigest()
        assert digest == expected["drawn_image_sha256_rgb"]
        assert torch.equal(dataset.image(row), pixels[index])
        wanted = {k: v for k, v in results[index].items() if k not in ("prediction", "score")}
        assert {"text": row.text, **row.fields} == wanted
        assert list(row.fields) == [k for k in wanted if k != "text"]


def test_the_golden_text_before_the_processor():
    config = golden_dataset().config
    plain = LckConfig(build_info=config.build_info)
    dataset = build_dataset("unified_vqa_binary", plain, "test")
    for index, expected in enumerate(EXPECTED):
        assert dataset.row(index).text == expected["text_before_processing"]


def test_rows_share_a_key_exactly_when_their_images_are_equal():
    dataset = golden_dataset()
    rows = [dataset.row(i) for i in range(len(dataset))]
    pixels = [dataset.drawn_image(row).tobytes() for row in rows]
    for i, first in enumerate(rows):
        for j, second in enumerate(rows):
            if first.image_key == second.image_key:
                assert pixels[i] == pixels[j]
    other = golden_dataset(line_width=3).row(0)
    assert other.image_key != rows[0].image_key
    assert golden_dataset().row(0).image_key == rows[0].image_key


@pytest.mark.parametrize(
    "case", [c for c in LABELS if not c["multi_class"] and not c["generative"]]
)
def test_labels_in_both_polarities(case):
    released = read_label(case["record"], polarity="released")
    assert released == case["expected"]
    corrected = read_label(case["record"])
    words = case["record"].get("label")
    if words is None:
        assert corrected == released
    else:
        assert corrected == int(words.count("accept") >= 2) == 1 - released


@pytest.mark.parametrize("record", [{"label": ["yes"]}, {"label": 2}, {"reject_label": "no"}])
def test_other_labels_are_refused(record):
    with pytest.raises(RecordError, match=r"wrong type: (label|reject_label) is"):
        read_label(record)


def test_a_batch_holds_images_texts_and_targets(lck, images):
    records = [
        lck.record(0, label=["accept", "accept", "reject"], qa_score=0.5, r_score=0.25),
        lck.record(1, reject_label=1, qa_score=1, r_score=0),
    ]
    dataset = lck.open(images, lck.write(images / "r.jsonl", records))
    rows = [dataset.row(0), dataset.row(1)]
    assert rows[0].image_key == rows[1].image_key
    samples = dataset.collate(rows, dataset.image(rows[0])[None], [0, 0])
    assert samples["image"].shape == (1, 3, 16, 16)
    assert samples["image_index"].tolist() == [0, 0]
    text = "what is [0] ? answer: near [1] . rationale: i see [0] , [1] ."
    assert samples["text_input"] == [text, text]
    assert samples["label"].tolist() == [1, 0]
    assert samples["qa_label"].tolist() == [0.5, 1.0]
    assert samples["r_label"].tolist() == [0.25, 0.0]
    assert samples["instance_id"] == ["test-0", "test-1"]
    assert samples["image_id"].tolist() == [0, 1]
    assert rows[0].fields == {"instance": "test-0", "index": 0, "label": 1}
    features = dataset.collate(rows, torch.zeros(1, 4, 8), [0, 0])
    assert "image" not in features
    assert features["vision_features"].shape == (1, 4, 8)


def test_training_draws_region_or_all_regions_and_needs_a_label(lck, images):
    path = lck.write(images / "r.jsonl", [lck.record(0, reject_label=0), lck.record(1)])
    dataset = lck.open(images, path, split="train")
    orders = [
        tuple(r.region_id for r in dataset.row(0, random.Random(seed)).drawing.regions)
        for seed in range(400)
    ]
    in_order = orders.count((3, 1))
    assert 200 <= in_order <= 280  # 0.6 of 400
    shuffled = {o for o in orders if o != (3, 1)}
    assert len(shuffled) == 6  # every order of [1, 2, 3]
    row = dataset.row(0, random.Random(next(i for i, o in enumerate(orders) if o == (2, 3, 1))))
    assert row.text.startswith("what is [1] ? answer: near [2] .")
    assert tuple(r.region_id for r in dataset.row(0).drawing.regions) == (3, 1)
    with pytest.raises(RecordError, match="missing field: label or reject_label"):
        dataset.row(1)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("number", "what is [0] ? answer: near [1] . rationale: i see [0] , [1] ."),
        ("name", "what is [0] ? answer: near o1 . rationale: i see [0] , o1 ."),
        ("drop", "what is [0] ? answer: near  . rationale: i see [0] ,  ."),
    ],
)
def test_what_is_said_of_a_region_that_is_not_drawn(lck, images, option, expected):
    path = lck.write(images / "r.jsonl", [lck.record()])
    dataset = lck.open(images, path, max_regions=1, undrawn_regions=option)
    assert dataset.row(0).text == expected
    assert len(dataset.row(0).drawing.drawn) == 1


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.permutations(range(9)),
    st.integers(0, 9),
    st.integers(0, 9),
    st.lists(st.one_of(st.just("w"), st.lists(st.integers(0, 12), max_size=3)), max_size=8),
    st.sampled_from(["number", "drop"]),
)
def test_numbers_in_the_text_are_colours_in_the_image(
    lck, images, order, named, limit, tokens, undrawn
):
    references = [{"name": str(i), "boxes": [[i, i, i + 5, i + 5]]} for i in range(9)]
    record = lck.record(
        region=list(order[:named]), references=references, question=["q", *tokens], rationale=...
    )
    path = lck.write(images / "r.jsonl", [record])
    dataset = lck.open(images, path, max_regions=limit, undrawn_regions=undrawn)
    dataset.text_processor = lambda text: text
    row = dataset.row(0)
    color_of = {r.box[0]: r.color_id for r in row.drawing.drawn}
    expected = []
    for token in tokens:
        if not isinstance(token, list):
            expected.append(token)
            continue
        parts = []
        for region_id in token:
            if region_id in color_of:
                parts.append(f"[{color_of[float(region_id)]}]")
            elif region_id in order[:named]:
                place = order[:named].index(region_id)
                parts.append(f"[{place}]" if undrawn == "number" else "")
        expected.append(" , ".join(parts))
    assert row.text.startswith(" ".join(["q", *map(str, expected), "Answer:"]))
    assert sorted(color_of.values()) == list(range(min(named, limit)))


def test_polygons_are_drawn_where_asked_for(lck, images):
    references = [{"name": "1", "boxes": [[2, 2, 30, 25]], "segms": [[[2, 2], [30, 5], [9, 25]]]}]
    references.append({"name": "2", "boxes": [[5, 5, 9, 9]], "segms": None})
    record = lck.record(region=[1, 2], references=references)
    path = lck.write(images / "r.jsonl", [record])
    boxes, segms = (lck.open(images, path, region_mode=m) for m in ("boxes", "segms"))
    first, second = boxes.row(0), segms.row(0)
    assert first.image_key != second.image_key
    assert second.drawing.drawn[0].polygons == (((2, 2), (30, 5), (9, 25)),)
    assert second.drawing.drawn[1].polygons is None
    assert boxes.drawn_image(first).tobytes() != segms.drawn_image(second).tobytes()


def test_masks_are_drawn_shown_and_part_of_the_key(lck, images):
    ring = np.zeros((30, 40), bool)
    ring[5:25, 5:35] = True
    ring[12:18, 12:28] = False
    keys = set()
    for mask in (ring, ~ring):
        record = lck.record(region=[0], mask_rles=[Rle.of_mask(mask).to_coco()], references=...)
        path = lck.write(images / "r.jsonl", [record])
        boxes, segms = (lck.open(images, path, region_mode=m) for m in ("boxes", "segms"))
        keys |= {boxes.row(0).image_key, segms.row(0).image_key}
        drawn = segms.drawn_image(segms.row(0))
        before = np.asarray(Image.open(images / "a.png"))
        np.testing.assert_array_equal((np.asarray(drawn) != before).any(axis=2), mask)
        segms.vis_processor = load_processor("vlm_image", {"shows": "mask"})
        shown = segms.image(segms.row(0))
        alone = shown.views[1].permute(1, 2, 0).numpy()
        assert (alone[~mask] == 255).all() and (alone[mask] == before[mask]).all()
        (mark,) = segms.region_marks(segms.row(0), (40, 30))
        box = (12.5, 100 / 6, 75, 200 / 3) if mask is ring else (0, 0, 100, 100)
        assert mark.box == pytest.approx(box)
    assert len(keys) == 4
    record = lck.record(region=[0], mask_rles=[Rle.of_mask(ring.T).to_coco()], references=...)
    dataset = lck.open(images, lck.write(images / "r.jsonl", [record]))
    with pytest.raises(RecordError, match="bad mask: region 0 has one of 30 x 40 pixels"):
        dataset.image(dataset.row(0))
    half = {"mask_rles": [Rle.of_mask(ring[::2, ::2]).to_coco()], "boxes_size": [20, 15]}
    record = lck.record(region=[0], references=..., **half)
    dataset = lck.open(images, lck.write(images / "r.jsonl", [record]), region_mode="segms")
    (region,) = dataset.row(0).drawing.drawn
    assert region.mask.size == (40, 30) and region.box == (6, 6, 36, 26)


def test_new_drawing_options_change_pixels_and_keys(lck, images):
    Image.new("RGB", (400, 300), (90, 90, 90)).save(images / "a.png")
    references = [{"name": str(i), "boxes": [[50 * i, 9, 50 * i + 40, 99]]} for i in range(7)]
    record = lck.record(region=list(range(7)), references=references)
    path = lck.write(images / "r.jsonl", [record])
    drawn, keys = [], set()
    for options in (
        {},
        {"max_regions": None},
        {"max_regions": None, "palette": "distinct"},
        {"max_regions": None, "line_width": "auto"},
    ):
        dataset = lck.open(images, path, **options)
        row = dataset.row(0)
        keys.add(row.image_key)
        drawn.append(dataset.drawn_image(row))
    assert len(keys) == 4
    assert drawn[0].getpixel((300, 50)) == (90, 90, 90)  # the seventh region is not drawn
    assert drawn[1].getpixel((300, 50)) == (103, 102, 102)
    distinct = drawn[2].getpixel((300, 50))
    assert max(distinct) - min(distinct) > 100
    # 400 pixels are squashed to 16: two pixels of line need 50
    assert drawn[3].getpixel((20, 60)) == (5, 255, 55)
    assert drawn[0].getpixel((20, 60)) != (5, 255, 55)


def test_a_missing_image_processor_names_its_key(lck, images):
    dataset = lck.open(images, lck.write(images / "r.jsonl", [lck.record()]))
    plain = LckConfig(build_info=dataset.config.build_info)
    other = build_dataset("unified_vqa_binary", plain, "test")
    with pytest.raises(ConfigError, match=r"unified_vqa_binary\.vis_processor\.eval: missing"):
        other.image(other.row(0))


def test_other_forms_of_records(lck, images):
    records = [
        lck.record(question=..., answer=..., full_text_input=["All", [3], "of", "it"]),
        lck.record(question=..., answer=..., text_input=["In", [1]], text_output=["out"]),
        lck.record(rationale=...),
        lck.record(references={"3": {"boxes": [[1, 1, 5, 5]]}, "1": {"boxes": [[2, 2, 7, 7]]}}),
    ]
    dataset = lck.open(images, lck.write(images / "r.jsonl", records))
    assert dataset.row(0).text == "all [0] of it"
    assert dataset.row(1).text == "in [1] out"
    assert dataset.row(2).text == "what is [0] ? answer: near [1] ."
    assert [r.box for r in dataset.row(3).drawing.regions] == [(1, 1, 5, 5), (2, 2, 7, 7)]


def test_the_mapping_may_be_a_list_a_dictionary_or_the_record_itself(lck, images):
    entries = [{"boxes": [[i, i, i + 5, i + 5]]} for i in range(4)]
    lines = [
        {"image": "a.png", "region_locations": entries},
        {"image": "b.png", "region_locations": {str(i): e for i, e in enumerate(entries)}},
        {"image": "c.png", **{str(i): e for i, e in enumerate(entries)}},
    ]
    mapping = lck.write(images / "mapping.jsonl", lines)
    for name in ("b.png", "c.png"):
        (images / name).write_bytes((images / "a.png").read_bytes())
    records = [lck.record(image=line["image"], references=...) for line in lines]
    dataset = lck.open(
        images, lck.write(images / "r.jsonl", records), source={"region_mapping": mapping}
    )
    for index in range(3):
        boxes = [r.box for r in dataset.row(index).drawing.regions]
        assert boxes == [(3, 3, 8, 8), (1, 1, 6, 6)]


def test_records_can_be_read_without_torch(lck, images):
    path = lck.write(images / "r.jsonl", [lck.record()])
    code = (
        "import sys; from lavis.datasets.lck.dataset import LckDataset; "
        "from lavis.datasets.config import LckConfig; "
        f"d = LckDataset(LckConfig(build_info={{'annotations': {{'test': {{'storage': {path!r}}}}},"
        f"'images': {{'storage': {str(images)!r}}}}}), 'test', name='lck'); "
        "d.drawn_image(d.row(0)); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize(
    ("rationale", "text", "is_empty"),
    [
        ([], "what is [0] ? answer: near [1] . rationale:", True),
        ([""], "what is [0] ? answer: near [1] . rationale:", True),
        ([[2], " "], "what is [0] ? answer: near [1] . rationale:", True),  # 2 is not in `region`
        ([[2], "x"], "what is [0] ? answer: near [1] . rationale:  x", False),
        (None, "what is [0] ? answer: near [1] .", False),
    ],
)
def test_an_empty_rationale_is_scored_as_released(lck, images, rationale, text, is_empty):
    record = lck.record(rationale=rationale)
    dataset = lck.open(images, lck.write(images / "r.jsonl", [record]))
    assert dataset.row(0).text == text
    assert has_empty_rationale(record) is is_empty


def test_a_vision_language_model_gets_images_at_their_size_and_texts_in_parts():
    config = golden_dataset().config
    own = {"build_info": config.build_info, "vis_processor": {"eval": {"name": "vlm_image"}}}
    dataset = build_dataset("unified_vqa_binary", LckConfig(**own), "test")
    rows = [dataset.row(0), dataset.row(1)]
    samples = dataset.collate(rows, [dataset.image(row) for row in rows], [0, 1])
    assert "image" not in samples
    for place, row in enumerate(rows):
        (view,) = samples["views"][place]
        assert view.permute(1, 2, 0).numpy().tobytes() == dataset.drawn_image(row).tobytes()
        words = samples["region_words"][place]
        assert (
            words == ("the box outlined in green", "the box outlined in light blue")[: len(words)]
        )
        assert len(words) == len(row.drawing.drawn) > 0
        parts = samples["parts"][place]
        assert parts["text"] == row.text
        whole = f"{parts['question']} Answer: {parts['answer']} Rationale: {parts['rationale']}"
        assert whole == row.text
