"""Boxes of the published formats, in corners, whatever each of them writes."""

import json
import logging

import pytest
from PIL import Image

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.files.records import parse_object
from lavis.datasets.lck.scene_sources import image_lines, line_bytes
from lavis.datasets.lck.scenes import ScenesConfig, open_scene


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a source file and reads it back as lines."""

    def read(name, content, **options):
        path = tmp_path / name
        is_lines = name.endswith(".jsonl")
        text = "".join(json.dumps(r) + "\n" for r in content) if is_lines else json.dumps(content)
        path.write_text(text)
        return list(image_lines(ScenesConfig(root=str(tmp_path), regions=str(path), **options)))

    return read


def boxes(line):
    return [(entry["boxes"][0], entry["obj_guess"]) for entry in line["regions"]]


VCR = {
    "boxes": [[10.5, 20.0, 110.5, 220.0, 0.98], [0.0, 1.0, 5.0, 6.0, 0.5]],
    "segms": [[[[10, 20], [110, 20], [110, 220]]], []],
    "names": ["person", "cup"], "width": 1920, "height": 797,
}  # fmt: skip


def test_vcr_boxes_are_corners_with_a_score(read, tmp_path):
    folder = tmp_path / "vcr1images" / "movie"
    folder.mkdir(parents=True)
    (folder / "a@0.json").write_text(json.dumps(VCR))
    record = {
        "img_fn": "movie/a@0.jpg",
        "metadata_fn": "movie/a@0.json",
        "objects": ["person", "cup"],
    }
    missing = {"img_fn": "movie/b.jpg", "metadata_fn": "movie/b.json"}
    lines = read("val.jsonl", [record, missing, {**record, "question": ["x"]}])
    assert [line["image"] for line in lines] == [
        "vcr1images/movie/a@0.jpg",
        "vcr1images/movie/b.jpg",
    ]
    assert boxes(lines[0]) == [([10.5, 20, 110.5, 220, 0.98], "person"), ([0, 1, 5, 6, 0.5], "cup")]
    assert lines[0]["keep_ids"] and lines[0]["regions"][0]["segms"] == VCR["segms"][0]
    assert lines[1]["reject"] == "missing metadata: b.json"
    images = tmp_path / "vcr1images"
    folder_lines = list(image_lines(ScenesConfig(root=str(images), regions=str(images))))
    assert folder_lines == [{**lines[0], "image": "movie/a@0.jpg"}]


def test_visual_genome_boxes_have_width_and_height(read, tmp_path):
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2" / "2.jpg").touch()
    tree = {
        "synsets": ["tree.n.01"], "h": 557, "object_id": 1058549, "merged_object_ids": [],
        "names": ["trees", "tree"], "w": 799, "y": 0, "x": 3,
    }  # fmt: skip
    url = "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"
    objects = [{"image_id": 2, "objects": [tree], "image_url": url}, {"image_id": 1, "objects": []}]
    lines = read("objects.json", objects)
    assert [line["image"] for line in lines] == ["VG_100K_2/2.jpg", "1.jpg"]
    assert boxes(lines[0]) == [([3, 0, 802, 557], "trees")] and "keep_ids" not in lines[0]
    region = {
        "region_id": 1382, "width": 82, "height": 139, "image_id": 2, "y": 57, "x": 421,
        "phrase": "the clock is green",
    }  # fmt: skip
    described = read("region_descriptions.json", [{"regions": [region], "id": 2}])
    assert boxes(described[0]) == [([421, 57, 503, 196], "")]
    assert described[0]["regions"][0]["caption"] == "the clock is green"
    attributes = [{"image_id": 2, "attributes": [{**tree, "attributes": ["green", "tall"]}]}]
    assert read("attributes.json", attributes)[0]["regions"][0]["attributes"] == ["green", "tall"]


def test_coco_boxes_have_width_and_height_and_no_crowds(read):
    instances = {
        "images": [
            {"id": 9, "file_name": "000000000009.jpg", "width": 640, "height": 480},
            {"id": 25, "file_name": "000000000025.jpg", "width": 640, "height": 426},
        ],
        "annotations": [
            {"image_id": 25, "category_id": 51, "bbox": [1.08, 187.69, 611.59, 285.84]},
            {"id": 2, "image_id": 25, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"id": 3, "image_id": 25, "category_id": 1, "bbox": [5, 5, 9]},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 51, "name": "bowl"}],
    }  # fmt: skip
    lines = read("instances_val2017.json", instances)
    assert lines[0] == {"image": "000000000009.jpg", "regions": []}
    [bowl, short] = lines[1]["regions"]
    assert bowl["boxes"][0] == pytest.approx([1.08, 187.69, 612.67, 473.53])
    assert bowl["obj_guess"] == "bowl" and "expected 4 numbers" in short["reject"]


def test_lines_of_ones_own_have_corners_or_widths(read):
    record = {"image": "a.png", "boxes": [[1, 2, 10, 20]], "names": ["dog"]}
    assert boxes(read("own.jsonl", [record])[0]) == [([1, 2, 10, 20], "dog")]
    assert boxes(read("own.jsonl", [record], box_format="xywh")[0]) == [([1, 2, 11, 22], "dog")]
    two = read("own.jsonl", [record, {"image": "b.png"}, record], limit=1)
    assert [len(line["regions"]) for line in two] == [2]  # both lines of a.png


def test_references_of_all_records_of_an_image_come_together(read):
    def lck(ids):
        refs = [{"name": str(i), "boxes": [[i, i, i + 5, i + 5]], "segms": None} for i in ids]
        return {"image": "a.png", "references": refs, "question": ["x"]}

    [line] = read("lck.jsonl", [lck([3, 1]), lck([1, 0])])
    assert [entry["name"] for entry in line["regions"]] == ["0", "1", "3"]
    assert line["regions"][2] == {"name": "3", "boxes": [[3, 3, 8, 8]]}


def test_a_mapping_keeps_its_ids_and_what_it_says(read):
    entries = [{"boxes": [[1, 1, 9, 9]], "caption": "x"}, None, {"boxes": [[2, 2, 9, 9]]}]
    record = {"image": "a.png", "region_locations": entries, "captions": ["c"]}
    [line] = read("mapping.jsonl", [{**record, "captions": ["old"]}, record])
    assert [entry["name"] for entry in line["regions"]] == ["0", "2"]
    assert line["captions"] == ["c"] and line["regions"][0]["caption"] == "x"


def test_a_folder_gives_its_images_in_order(tmp_path):
    for name in ("b/2.JPG", "b/10.png", "a.webp", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    lines = image_lines(ScenesConfig(root=str(tmp_path)))
    assert [line["image"] for line in lines] == ["a.webp", "b/10.png", "b/2.JPG"]


def test_another_form_is_refused(read):
    with pytest.raises(DataError, match="none of Visual Genome's files"):
        read("x.json", [{"foo": 1}])
    with pytest.raises(DataError, match="not COCO instances"):
        read("x.json", {"foo": 1})
    with pytest.raises(
        DataError, match="no line is a record with an 'image'; the first: missing field: image"
    ):
        read("x.jsonl", [{"foo": 1}])


def open_line(tmp_path, line, **options):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    config = ScenesConfig(root=str(tmp_path), **options)
    return open_scene({"image": "a.png", **line}, ImageRoot(str(tmp_path)), config)


def entry(name, *box):
    return {"name": str(name), "boxes": [list(box)], "obj_guess": f"o{name}"}


def test_bad_boxes_are_named_and_ids_stay_or_close_up(tmp_path):
    regions = [
        entry(0, 5, 5, 5.5, 30), entry(1, 0, 0, 90, 40), entry(2, 9, 9, 3, 20),
        entry(3, 70, 0, 90, 20), entry(4, 1, 1, 20, 20), {"name": "5", "reject": "has none"},
        entry(6, 1, 1, float("nan"), 20),
    ]  # fmt: skip
    record, bad = open_line(tmp_path, {"regions": regions, "keep_ids": True})
    assert list(record["region_locations"]) == ["1", "4"]
    assert [reason.split(":")[0] for reason in bad] == [
        "bad box", "bad box", "box outside the image", "bad box", "bad box",
    ]  # fmt: skip
    fresh, _ = open_line(tmp_path, {"regions": regions})
    assert [(e["name"], e["obj_guess"]) for e in fresh["region_locations"]] == [
        ("0", "o1"),
        ("1", "o4"),
    ]
    assert (record["width"], record["height"]) == (60, 40)


def test_the_largest_regions_may_come_first(tmp_path):
    regions = [entry(0, 0, 0, 5, 5), entry(1, 0, 0, 30, 30), entry(2, 0, 0, 10, 10)]
    largest, _ = open_line(tmp_path, {"regions": regions}, max_regions=2, order="area")
    assert [e["obj_guess"] for e in largest["region_locations"]] == ["o1", "o2"]
    first, _ = open_line(tmp_path, {"regions": regions}, max_regions=2)
    assert [e["obj_guess"] for e in first["region_locations"]] == ["o0", "o1"]


def test_a_broken_image_is_refused(tmp_path):
    with pytest.raises(RecordError, match="missing image"):
        open_line(tmp_path, {"image": "b.png", "regions": []})
    with pytest.raises(RecordError, match="malformed metadata"):
        open_line(tmp_path, {"reject": "malformed metadata: x"})


def test_a_folder_of_images_says_what_it_passes_over(tmp_path, caplog):
    for name in ("a.JPG", "._a.jpg", "caf\udce9.png", "sub/b.tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    with caplog.at_level(logging.INFO):
        lines = list(image_lines(ScenesConfig(root=str(tmp_path))))
    assert [line["image"] for line in lines] == ["a.JPG", "caf\\xe9.png", "sub/b.tiff"]
    assert lines[1]["reject"] == "file name that is not UTF-8: caf\\xe9.png"
    assert parse_object(line_bytes(lines[1])) == lines[1]
    for said in ("1 names of the system", "1 files .txt (notes.txt)", "1 links to a folder above"):
        assert said in caplog.text


def test_a_bad_line_costs_its_image(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"image": "a.png"}\n{torn\n{"boxes": []}\n{"image": "b.png"}\n')
    lines = list(image_lines(ScenesConfig(root=str(tmp_path), regions=str(path))))
    assert [line["image"] for line in lines] == [
        "a.png", "line 2 of x.jsonl", "line 3 of x.jsonl", "b.png",
    ]  # fmt: skip
    assert lines[1]["reject"].startswith("malformed line: ")
    assert lines[2]["reject"] == "missing field: image"
