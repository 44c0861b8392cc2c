"""Every converter on a small sample of the published form: records by hand, rejects by reason."""

import json

import pytest
from PIL import Image

from lavis.common.errors import DataError, NothingDoneError, RecordError
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import ContrastiveConfig
from lavis.datasets.unified.choices import AokvqaConverter, SnliVeConverter, Visual7wConverter
from lavis.datasets.unified.convert import run_converter
from lavis.datasets.unified.record import numbers_to_ids, scaled
from lavis.datasets.unified.sherlock import SherlockConverter
from lavis.datasets.unified.vcr import VcrConverter
from lavis.datasets.unified.visualcomet import VisualCometConverter

FILM = "vcr1images/lsmdc_0001_A_FILM/0001_A_FILM_00.00.01.000-00.00.05.000@0.jpg"
PERSON_1 = {"boxes": [[2, 2, 20, 26, 0.99]], "obj_guess": "person"}
PERSON_2 = {"boxes": [[22, 2, 38, 26, 0.98]], "obj_guess": "person"}
CUP = {"boxes": [[16, 14, 24, 20, 0.7]], "obj_guess": "cup"}


def outputs(record):
    return [choice["text_output"] for choice in record["choices"]]


def test_vcr_answers(samples, converted):
    found = converted(VcrConverter(annotations=samples.vcr, image_dir=samples.vcr1images))
    assert found.counts == {"items": 2, "records": 2, "rejected": 0, "reasons": {}}
    assert found.records[0] == {
        "image": FILM,
        "instance_id": "val-0",
        "references": {"1": PERSON_2, "0": PERSON_1, "2": CUP},  # as they are mentioned
        "boxes_size": [40, 30],
        "text_input": ["What", "is", [1], "giving", "to", [0], "?"],
        "answer_prefix": "Answer:",
        "choices": [{"text_output": tokens} for tokens in samples.of.vcr["answer_choices"]],
        "label": 0,
    }
    assert list(found.records[0]["references"]) == ["1", "0", "2"]
    assert found.records[1]["label"] == 1


def test_vcr_rationales_follow_the_right_answer(samples, converted):
    converter = VcrConverter(annotations=samples.vcr, image_dir=samples.vcr1images, task="qar")
    first, second = converted(converter).records
    question = samples.of.vcr["question"]
    assert first["text_input"] == [*question, "Answer:", "A", [2], "."]
    assert second["text_input"] == [*question, "Answer:", [1], "gives", [0], "nothing", "."]
    assert first["answer_prefix"] == "Rationale:"
    assert outputs(first) == samples.of.vcr["rationale_choices"]
    assert first["label"] == 0


def test_vcr_problems_are_set_aside(samples, converted):
    good = samples.of.vcr
    lines = [
        {**good, "question": [[7], "?"]},
        {**good, "metadata_fn": "gone.json"},
        {key: value for key, value in good.items() if key != "answer_choices"},
        {key: value for key, value in good.items() if key != "answer_label"},
    ]
    path = samples.save("bad.jsonl", lines, lines=True)
    path.write_text(path.read_text() + "{broken\n")
    found = converted(VcrConverter(annotations=path, image_dir=samples.vcr1images))
    assert [r["reason"].split(":")[0] for r in found.rejects] == [
        "unknown region id",
        "missing file",
        "missing field",
        "malformed line",
    ]
    assert [r["line"] for r in found.rejects] == [1, 2, 3, 5]
    assert len(found.records) == 1 and "label" not in found.records[0]  # a test file's line


def test_vcr_with_all_objects(samples, converted):
    converter = VcrConverter(annotations=samples.vcr, image_dir=samples.vcr1images, regions="all")
    assert list(converted(converter).records[0]["references"]) == ["0", "1", "2"]


def test_sherlock(samples, converted):
    found = converted(
        SherlockConverter(annotations=samples.sherlock, answer_key=samples.answer_key)
    )
    assert found.records[0] == {
        "image": "VG_100K_2/7.jpg",
        "instance_id": "iid-a",
        "references": {
            "0": {"boxes": [[4, 5, 14, 13]], "obj_guess": ""},
            "1": {"boxes": [[20, 5, 26.5, 14]], "obj_guess": ""},
        },
        "boxes_size": [40, 30],
        "text_input": ["What", "can", "be", "inferred", "from", [0, 1], "?"],
        "answer_prefix": "Answer:",
        "choices": [
            {"text_output": ["it", "rained", "today"], "score": [3.0, 3.0]},
            {"text_output": ["it", "is", "a", "birthday"], "score": [1.0, 1.0]},
            {"text_output": ["people", "came", "in", "from", "outside"], "score": [2.0, 3.0]},
        ],
    }
    assert found.records[1]["image"] == FILM
    assert [choice["score"] for choice in found.records[1]["choices"]] == [[1.0, 1.0], [3.0, 2.0]]


def test_sherlock_answer_keys_of_other_forms_give_the_same_records(samples, converted):
    plain = converted(
        SherlockConverter(annotations=samples.sherlock, answer_key=samples.answer_key)
    ).records
    rows = [
        {"Input_iid": entry["Input_iid"], **candidate}
        for entry in samples.of.answer_key
        for candidate in entry["candidates"]
    ]
    columns = [
        {
            "Input_iid": entry["Input_iid"],
            **{key: [c[key] for c in entry["candidates"]] for key in entry["candidates"][0]},
        }
        for entry in samples.of.answer_key
    ]
    for content in (rows, columns):
        path = samples.save("key.json", content)
        converter = SherlockConverter(annotations=samples.sherlock, answer_key=path)
        assert converted(converter).records == plain


def test_sherlock_problems_are_set_aside(samples, converted):
    key = [*samples.of.answer_key[:1], {"Input_iid": "gone"}, {"x": 1}]
    path = samples.save("key.json", key)
    found = converted(SherlockConverter(annotations=samples.sherlock, answer_key=path))
    assert len(found.records) == 1
    reasons = {reject["reason"] for reject in found.rejects}
    assert "unknown instance: gone is not in sherlock_val_with_split_idxs_v1_1.json" in reasons
    assert "missing field: Input_iid" in reasons
    path = samples.save("key.json", key[1:2])
    with pytest.raises(DataError, match="has none of the 1 instances"):
        converted(SherlockConverter(annotations=samples.sherlock, answer_key=path))


def test_visualcomet_draws_candidates_of_other_images(samples, converted):
    def run(**options):
        return converted(
            VisualCometConverter(
                annotations=samples.visualcomet, image_dir=samples.vcr1images, **options
            )
        )

    found = run(count=3)
    # `serve tea` is true, `hide from 3` names a person who is not in the first event
    (intent,) = [r for r in found.records if r["instance_id"] == "1-intent"]
    assert intent["text_input"] == [
        [1], "hands", [0], "a", "cup", ",", "in", "a", "kitchen", ".",
        "Why", "does", [1], "do", "this", "?",
    ]  # fmt: skip
    texts = {json.dumps(c["text_output"]): c["truth"] for c in intent["choices"]}
    assert texts.pop('["be", "kind", "to", [0]]') == 1 and texts.pop('["serve", "tea"]') == 1
    assert texts in ({'["escape"]': 0}, {'["lose", [0], "\'s", "followers"]': 0})
    assert intent["group"] == "intent" and "label" not in intent
    assert list(intent["references"]) == ["1", "0"]
    (before,) = [r for r in found.records if r["instance_id"] == "1-before"]
    assert len(before["choices"]) == 3 and sum(c["truth"] for c in before["choices"]) == 1
    assert [r["reason"] for r in found.rejects if r["item"] == 1] == []
    assert {r["relation"] for r in found.rejects} == {"intent", "before"}  # too few are left
    assert found.records == run(count=3).records
    orders = {json.dumps(run(count=3, seed=seed).records) for seed in range(4)}
    assert len(orders) > 1
    with pytest.raises(NothingDoneError, match="of 6 items; 6 set aside, too few"):
        run()


def test_visualcomet_ranks_a_given_list(samples, converted):
    event = samples.of.visualcomet[0]
    lists = [
        {
            "img_fn": event["img_fn"],
            "event": event["event"],
            "relation": "before",
            "candidates": ["see danger", "make tea", "open the door"],
        }
    ]
    path = samples.save("lists.jsonl", lists, lines=True)
    found = converted(
        VisualCometConverter(
            annotations=samples.visualcomet,
            image_dir=samples.vcr1images,
            candidates=path,
            with_place=False,
        )
    )
    (record,) = found.records
    assert [choice["truth"] for choice in record["choices"]] == [0, 1, 0]
    assert record["text_input"][:6] == [[1], "hands", [0], "a", "cup", "."]
    assert set(found.counts["reasons"]) == {"no candidates"}


def test_aokvqa(samples, converted):
    assert converted(AokvqaConverter(annotations=samples.aokvqa)).records == [
        {
            "image": "val2017/000000299207.jpg",
            "instance_id": "22jbM6gDxdaMaunuzgrsBB",
            "references": {},
            "text_input": ["What", "is", "in", "the", "man's", "mouth?"],
            "answer_prefix": "Answer:",
            "choices": [
                {"text_output": tokens}
                for tokens in (["toothpick"], ["food"], ["popsicle", "stick"], ["cigarette"])
            ],
            "label": 3,
        }
    ]
    moved = converted(AokvqaConverter(annotations=samples.aokvqa, image_prefix="coco/")).records
    assert moved[0]["image"] == "coco/val2017/000000299207.jpg"


def test_snli_ve(samples, converted):
    found = converted(SnliVeConverter(annotations=samples.snli_ve))
    assert [record["label"] for record in found.records] == [1, 2]
    record = found.records[0]
    assert record["image"] == "flickr30k-images/4705552913.jpg"
    assert " ".join(record["text_input"]) == (
        "Does the image describe The sisters are hugging goodbye.?"
    )
    assert outputs(record) == [["contradiction"], ["neutral"], ["entailment"]]
    assert [(r["line"], r["reason"]) for r in found.rejects] == [(3, "no agreed label: '-'")]


def test_visual7w(samples, converted):
    found = converted(Visual7wConverter(annotations=samples.v7w))
    assert [record["image"] for record in found.records] == [
        "visual7w/v7w_2.jpg",
        "visual7w/v7w_3.jpg",
    ]
    record = found.records[0]
    assert outputs(record)[3] == ["Daytime."] and record["label"] == 3
    assert record["group"] == "when" and record["instance_id"] == "20"
    for seed in range(4):
        for record in converted(Visual7wConverter(annotations=samples.v7w, shuffle=seed)).records:
            assert outputs(record)[record["label"]] == ["Daytime."]


def test_limit_and_command(samples, tmp_path, capsys):
    output = tmp_path / "records.jsonl"
    status = run_converter(
        SnliVeConverter, "", [str(samples.snli_ve), "--output", str(output), "--limit", "1"]
    )
    assert status == 0 and len(output.read_text().splitlines()) == 1
    assert run_converter(SnliVeConverter, "", [str(samples.snli_ve), "--output", str(output)]) == 1
    said = capsys.readouterr().out
    assert "2 records of 3 items" in said and "set aside, no agreed label: 1" in said
    assert (tmp_path / "records.jsonl.rejects.jsonl").is_file()
    assert run_converter(SnliVeConverter, "", ["gone.jsonl", "--output", str(output)]) == 2
    assert "no such file: gone.jsonl" in capsys.readouterr().err
    assert len(output.read_text().splitlines()) == 2  # what was there stays


# text: what is left of it where an image has four people
PEOPLE = {
    "2 hands 1's cup to 3": [[1], "hands", [0], "'s", "cup", "to", [2]],
    "(1, 2) and 4.": ["(", [0], ",", [1], ")", "and", [3], "."],
    "is 1\u2019 s friend": ["is", [0], "\u2019", "s", "friend"],
    "a 2-year-old at 3:00 pays $3": ["a", "2-year-old", "at", "3:00", "pays", "$3"],
    "1.5 1st 1/2 3% #4 0 01 -1 1-2 2x": "1.5 1st 1/2 3% #4 0 01 -1 1-2 2x".split(),
    "5 of 10 \u0663 " + "9" * 5000: ["5", "of", "10", "\u0663", "9" * 5000],
}


@pytest.mark.parametrize("text", PEOPLE, ids=lambda text: text[:20])
def test_people_are_whole_words(text):
    assert numbers_to_ids(text, 4) == PEOPLE[text]


def test_digits_inside_words_are_no_people_of_drawn_candidates(samples, converted):
    entries = [dict(entry) for entry in samples.of.visualcomet]
    entries[1]["before"] = ["feed the 9-year-old", "wait until 7:30", "find 9"]
    path = samples.save("annots.json", entries)
    converter = VisualCometConverter(annotations=path, image_dir=samples.vcr1images, count=3)
    (before,) = [r for r in converted(converter).records if r["instance_id"] == "1-before"]
    said = sorted(" ".join(map(str, c["text_output"])) for c in before["choices"])
    assert said == ["feed the 9-year-old", "make tea", "wait until 7:30"]


@pytest.mark.parametrize("stored", [(80, 90), (20, 15)])
def test_sherlock_boxes_are_scaled_to_the_file(samples, converted, stored):
    Image.new("RGB", stored).save(samples.images / "VG_100K_2" / "7.jpg")
    width, height = stored[0] / 40, stored[1] / 30
    options = {"annotations": samples.sherlock, "answer_key": samples.answer_key}
    found = converted(SherlockConverter(**options, image_root=samples.images)).records[0]
    assert found["references"]["0"]["boxes"] == [[4 * width, 5 * height, 14 * width, 13 * height]]
    assert found["boxes_size"] == list(stored)
    # without the images the record says whose pixels the boxes are; both are drawn alike
    plain = converted(SherlockConverter(**options)).records[0]
    assert plain["boxes_size"] == [40, 30]
    assert plain["references"]["0"]["boxes"] == [[4, 5, 14, 13]]
    boxes = [drawn_boxes(samples, record)[0] for record in (found, plain)]
    assert boxes[0] == pytest.approx(boxes[1])
    assert boxes[0] == pytest.approx((4 * width, 5 * height, 14 * width, 13 * height))


def drawn_boxes(samples, record):
    path = samples.save("records.jsonl", [record], lines=True)
    config = ContrastiveConfig(
        build_info={
            "annotations": {"test": {"storage": [str(path)], "is_mc": True}},
            "images": {"storage": str(samples.images)},
        },
        text_processor={"eval": {"name": "blip_unified_vqa"}},
    )
    row = build_dataset("unified_contrastive", config, "test").row(0)
    return [region.box for region in row.drawing.regions]


def test_vcr_boxes_are_scaled_to_the_file(samples, converted):
    Image.new("RGB", (80, 60)).save(samples.images / FILM)
    record = converted(VcrConverter(annotations=samples.vcr, image_dir=samples.vcr1images)).records[
        0
    ]
    assert record["references"]["0"] == {"boxes": [[4, 4, 40, 52, 0.99]], "obj_guess": "person"}
    assert record["boxes_size"] == [80, 60]
    comet = VisualCometConverter(
        annotations=samples.visualcomet, image_dir=samples.vcr1images, count=3
    )
    assert converted(comet).records[0]["boxes_size"] == [80, 60]


@pytest.mark.parametrize(
    ("size", "reason"), [("40x30", "boxes_size"), ([0, 1], "boxes_size"), ([1], "boxes_size")]
)
def test_a_size_of_another_form_is_refused(samples, converted, size, reason):
    record = converted(
        SherlockConverter(annotations=samples.sherlock, answer_key=samples.answer_key)
    ).records[0]
    with pytest.raises(RecordError, match=reason):
        drawn_boxes(samples, {**record, "boxes_size": size})


def test_boxes_of_an_image_over_the_limit_of_pixels_stay_as_they_are(tmp_path, monkeypatch):
    Image.new("RGB", (80, 60)).save(tmp_path / "large.png")
    references = {"0": PERSON_1}
    assert scaled(references, (40, 30), tmp_path / "large.png")[1] == (80, 60)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # over twice of it Pillow refuses
    assert scaled(references, (40, 30), tmp_path / "large.png") == (references, (40, 30))
