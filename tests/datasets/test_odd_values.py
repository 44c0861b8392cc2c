"""One odd value costs one record: whatever a file holds, a row is read or refused with a reason."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_values import ODD_VALUES, as_json, spoiled, write_lines
from PIL import Image

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.builders import build_dataset
from lavis.datasets.captions.config import CaptionedImagesConfig
from lavis.datasets.config import ContrastiveConfig, GenerativeDatasetConfig, LaionConfig, LckConfig
from lavis.datasets.files.formats import open_records
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.records import JsonLinesFile, parse_object
from lavis.datasets.lck.record import make_region
from lavis.datasets.lck.scene_sources import image_lines, line_bytes
from lavis.datasets.lck.scenes import ScenesConfig, open_scene
from lavis.datasets.lck.tokens import region_number

ODD = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking reads many files
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SEVERAL = 15  # records of one example

REFERENCES = [
    {"name": str(i), "boxes": [[i, i, i + 10, i + 8, 0.9]], "segms": [[[1, 1], [9, 1], [9, 9]]],
     "obj_guess": f"o{i}", "description": "a thing"}
    for i in (1, 2, 3)
]  # fmt: skip
LCK = {
    "image": "a.png",
    "source": "test",
    "index": "test-0",
    "region": [3, 1],
    "region_all": [1, 2, 3],
    "references": REFERENCES,
    "question": ["What", "is", [3], "?"],
    "answer": ["Near", [1], "."],
    "rationale": ["I", "see", [3, 1], "."],
    "reject_label": 0,
    "qa_score": 0.5,
    "r_score": 1,
    "word_boxes": {"cup": [[0.1, 0.1, 0.5, 0.5]]},
}
CHOICES = {
    "image": "a.png",
    "instance_id": "x",
    "references": REFERENCES,
    "text_input": ["What", [1], "?"],
    "answer_prefix": "Answer:",
    "choices": [
        {"text_output": ["a", [2]], "score": [1, 2], "truth": 1},
        {"text_output": ["b"], "score": [3, 2], "truth": 0},
    ],
    "label": 1,
    "group": "g",
}
CAPTION = {"image": "a.png", "caption": "a cup", "box": [1, 2, 20, 20], "similarity": 0.3, "key": 7}
MAPPING = {
    "image": "a.png",
    "region_locations": {"1": REFERENCES[0], "3": REFERENCES[2]},
    "width": 40,
    "height": 30,
}
TEXT = {kind: {"name": "blip_unified_vqa"} for kind in ("train", "eval")}
VIS = {
    "train": {"name": "blip_image_train", "image_size": 16},
    "eval": {"name": "blip_image_eval", "image_size": 16},
}


@pytest.fixture
def folder(tmp_path):
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(tmp_path / "a.png")
    return tmp_path


def build(kind, config_class, folder, split, path, source=None, **options):
    config = config_class(
        build_info={
            "annotations": {split: {"storage": str(path), **(source or {})}},
            "images": {"storage": str(folder)},
        },
        vis_processor=VIS,
        text_processor=TEXT,
        cache_dir=str(folder / "cache"),
        **options,
    )
    return build_dataset(kind, config, split)


def read_all(dataset):
    """Read every row as a run does; returns reasons by row."""
    import random

    reasons = {}
    for index in range(len(dataset)):
        try:
            row = dataset.row(index, random.Random(0) if dataset.is_train else None)
            json.dumps(row.fields).encode("ascii")
            dataset.image(row)
        except RecordError as error:
            error.reason.encode("utf-8")  # the list of rejects can hold it
            assert 0 < len(error.reason) < 400
            reasons[index] = error.reason
        json.dumps(dataset.source(index))
    return reasons


CAPTIONS = {"text_key": "caption", "box_key": "box"}
KINDS = {
    "critic": ("unified_vqa_binary", LckConfig, "test", LCK, {}),
    "critic training": ("unified_vqa_binary", LckConfig, "train", LCK, {"word_boxes": True}),
    "polygons": ("unified_vqa_binary", LckConfig, "test", LCK, {"region_mode": "segms"}),
    "generative": ("unified_vqa_chatgpt", GenerativeDatasetConfig, "train", LCK, {}),
    "pairs": ("unified_contrastive", ContrastiveConfig, "train", LCK, {}),
    "choices": ("unified_contrastive", ContrastiveConfig, "test", CHOICES, {}),
    "laion": ("laion_sample_extracted", LaionConfig, "test", CAPTION, {}),
    "captions": ("captioned_images", CaptionedImagesConfig, "train", CAPTION, CAPTIONS),
}


@pytest.mark.parametrize("kind", list(KINDS))
@ODD
@given(data=st.data())
def test_a_row_is_read_or_refused(folder, kind, data):
    name, config, split, record, options = KINDS[kind]
    records = [record, *(data.draw(spoiled(record)) for _ in range(SEVERAL))]
    source = {"is_mc": True} if kind == "choices" else {}
    path = write_lines(folder / "r.jsonl", records)
    dataset = build(name, config, folder, split, path, source, **options)
    assert 0 not in read_all(dataset)


@ODD
@given(data=st.data())
def test_rows_of_lists_are_read_or_refused_one_by_one(folder, data):
    records = [LCK, *(data.draw(spoiled(LCK)) for _ in range(SEVERAL)), LCK]
    (folder / "r.json").write_text(as_json(records))
    dataset = build("unified_vqa_binary", LckConfig, folder, "test", folder / "r.json")
    reasons = read_all(dataset)
    assert len(dataset) == len(records)
    assert not {0, len(records) - 1} & reasons.keys()


@ODD
@given(data=st.data())
def test_a_region_mapping_costs_its_own_images(folder, data):
    lines = [data.draw(spoiled(MAPPING)) for _ in range(SEVERAL)]
    write_lines(folder / "m.jsonl", lines)
    path = write_lines(folder / "r.jsonl", [{**LCK, "references": None}, LCK])
    source = {"region_mapping": str(folder / "m.jsonl")}
    dataset = build("unified_vqa_binary", LckConfig, folder, "test", path, source)
    assert 1 not in read_all(dataset)


VCR_BOXES = {
    "boxes": [[1.5, 2, 20, 22, 0.9], [0, 1, 5, 6, 0.5]],
    "segms": [[[[1, 2], [9, 2], [9, 9]]], []],
    "names": ["person", "cup"],
    "width": 40,
    "height": 30,
}
SOURCES = {
    "vg": (
        "x.json",
        [
            {
                "image_id": 1,
                "image_url": "https://x/VG_100K/a.png",
                "objects": [
                    {"x": 1, "y": 2, "w": 9, "h": 9, "names": ["cup"], "attributes": ["red"]}
                ],
            }
            for _ in range(3)
        ],
    ),
    "coco": (
        "x.json",
        {
            "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
            "annotations": [{"image_id": 1, "bbox": [1, 2, 9, 9], "category_id": 3, "iscrowd": 0}],
            "categories": [{"id": 3, "name": "cup"}],
        },
    ),
    "lines": ("x.jsonl", {"image": "a.png", "boxes": [[1, 2, 9, 9]], "names": ["cup"]}),
    "mapping": ("x.jsonl", MAPPING),
    "lck": ("x.jsonl", LCK),
    "vcr": ("m.json", VCR_BOXES),
}


@pytest.mark.parametrize("kind", list(SOURCES))
@ODD
@given(data=st.data())
def test_boxes_of_images_are_read_or_refused(folder, kind, data):
    name, content = SOURCES[kind]
    path = folder / name
    if name.endswith(".jsonl"):
        write_lines(path, [content, *(data.draw(spoiled(content)) for _ in range(SEVERAL))])
    else:
        path.write_text(as_json(data.draw(spoiled(content))))
    regions = folder if kind == "vcr" else path
    config = ScenesConfig(
        root=str(folder), regions=str(regions), format="vcr" if kind == "vcr" else "auto"
    )
    root = ImageRoot(str(folder))
    try:
        lines = list(image_lines(config))
    except DataError as error:
        assert not isinstance(error, RecordError)
        assert name in str(error) or str(folder) in str(error)
        return
    for line in lines:
        try:
            record, bad = open_scene(parse_object(line_bytes(line)), root, config)
        except RecordError as error:
            error.reason.encode("utf-8")
        else:
            parse_object(json.dumps(record).encode())
            assert all(isinstance(reason, str) for reason in bad)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_record_or_refused(line):
    try:
        assert isinstance(parse_object(line), dict)
    except RecordError as error:
        assert error.reason.startswith("malformed line: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": ' + b"7" * 5000 + b"}", "malformed line: Exceeds the limit"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "malformed line: nested more than 200 deep"),
        (b"[" * 100_000, "malformed line: "),
        (b'{"a": "\\ud83d"}', "malformed line: .*surrogates not allowed"),
        (b"7", "malformed line: a JSON object was expected, not int"),
    ],
)
def test_what_is_no_record_says_why(line, reason):
    with pytest.raises(RecordError, match=reason):
        parse_object(line)
    assert parse_object(b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}")


@pytest.mark.parametrize("value", ["--5", "5" * 5000, "", "-", "1.5", 10**18, True, None, 2.5, [1]])
def test_region_ids_are_whole_numbers_of_at_most_18_digits(value):
    with pytest.raises(RecordError, match=r"region id .* is not a whole number"):
        region_number(value)


def test_region_ids_may_be_digits():
    assert [region_number(v) for v in (7, "7", " -7 ", "٧", "007")] == [7, 7, -7, 7, 7]


@pytest.mark.parametrize("value", [10**400, -(10**400), math.inf, math.nan, 2**30, 1e308])
def test_boxes_have_finite_corners(value):
    with pytest.raises(RecordError, match="bad box: region 3 is not finite"):
        make_region(3, {"boxes": [[1, 1, value, 9]]})
    with pytest.raises(RecordError, match="bad polygon: region 3"):
        make_region(3, {"boxes": [[1, 1, 9, 9]], "segms": [[[1, value]]]})


def test_bad_text_in_a_column_costs_its_row(folder):
    offsets = pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0]))
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xff\xfeabc")])
    images = pa.array(["a.png", "a.png"])
    table = pa.table({"image": images, "caption": column})
    pq.write_table(table, folder / "r.parquet")
    store = open_records([str(folder / "r.parquet")])
    with pytest.raises(RecordError, match="malformed row: 'utf-8' codec can't decode"):
        store.read(0)
    assert store.read(1) == {"image": "a.png", "caption": "abc"}
    dataset = build(
        "captioned_images",
        CaptionedImagesConfig,
        folder,
        "train",
        folder / "r.parquet",
        text_key="caption",
    )
    assert list(read_all(dataset)) == [0]


def test_json_text_in_a_column_is_checked_like_a_line(folder):
    cells = ['["a", [1]]', '["half \\ud83d"]', "[" * 5000, "[" * 300 + "]" * 300, "[not JSON"]
    pq.write_table(pa.table({"question": cells}), folder / "r.parquet")
    store = open_records([str(folder / "r.parquet")])
    assert store.read(0) == {"question": ["a", [1]]}
    assert store.read(4) == {"question": "[not JSON"}
    for row in (1, 2, 3):
        with pytest.raises(RecordError, match="malformed"):
            store.read(row)


def test_a_row_of_csv_that_is_not_utf8_is_refused_alone(folder):
    (folder / "r.csv").write_bytes(b"image,caption\na.png,caf\xe9\na.png,cup\n")
    path, config = folder / "r.csv", CaptionedImagesConfig
    dataset = build("captioned_images", config, folder, "train", path, text_key="caption")
    assert read_all(dataset) == {0: "malformed row: text that is not UTF-8"}


def test_odd_values_are_odd():
    """The list is what it says: JSON of it is read, and Python's numbers stumble over it."""
    for value in ODD_VALUES:
        try:
            parse_object(as_json({"a": value}).encode())
        except RecordError as error:
            assert "limit" in error.reason or "surrogates" in error.reason or "deep" in error.reason


def test_a_file_that_is_a_line_too_long_or_empty_is_read(folder):
    (folder / "r.jsonl").write_bytes(b"")
    assert len(JsonLinesFile(str(folder / "r.jsonl"))) == 0
    with pytest.raises((DataError, ConfigError), match="no records in"):
        build("unified_vqa_binary", LckConfig, folder, "test", folder / "r.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"a": 1}]\n[{"a": 2}]', "something follows the end, such as a second list"),
        ("a.json", '[{"a": 1}, {"a": 2}', "the file is cut off"),
        ("a.jsonl", b"\x1f\x8b\x08\0\0\0", "gzip under another name"),
        ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "UTF-16; save it as UTF-8"),
    ],
)
def test_files_that_are_not_what_they_seem_are_refused_whole(folder, name, content, message):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        open_records([str(folder / name)], cache_dir=str(folder / "c"))


@pytest.mark.parametrize("pattern", ["{3..1}", "{0..99999999999}"])
def test_patterns_that_name_nothing_or_too_much_are_refused(pattern):
    with pytest.raises(DataError, match=r"names .* files"):
        open_records([f"x-{pattern}.jsonl"])


def test_whatever_a_value_makes_a_data_set_raise_costs_its_row(folder):
    path = write_lines(folder / "r.jsonl", [LCK, LCK])
    dataset = build("unified_vqa_binary", LckConfig, folder, "test", path)

    def refuses(text):
        raise OverflowError("int too large to convert to float")

    dataset.text_processor = refuses
    assert set(read_all(dataset).values()) == {
        "malformed record: int too large to convert to float"
    }
