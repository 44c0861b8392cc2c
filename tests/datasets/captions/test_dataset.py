"""Captioned images in every form: the same rows, the right pixels, bad rows set aside."""

import csv
import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.base import TrainingView
from lavis.datasets.builders import build_dataset
from lavis.datasets.captions.config import CaptionedImagesConfig, LaionCaptionsConfig
from lavis.datasets.captions.dataset import cut_out, read_box
from lavis.datasets.rows import RejectedRow

SIZE = 16


def coloured(number, width=24, height=18):
    """Return an image in which every pixel differs."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 7 + number, columns * 5, rows * columns % 256]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        coloured(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def records():
    boxes = [
        [2, 3, 10, 9],
        None,
        [-4, -4, 6, 5],
        [20, 10, 90, 90],
        [0, 0, 24, 18],
        None,
        [1, 1, 2, 2],
    ]
    return [
        {"image": f"{i}.png", "text": f'[a] caption, "{i}"\nof two lines é', "box": box}
        for i, box in enumerate(boxes)
    ]


def opened(storage, root, split="train", **options):
    processor = {"name": "clip_image", "image_size": SIZE}
    config = CaptionedImagesConfig(
        build_info={
            "annotations": {split: {"storage": storage}},
            "images": {"storage": str(root)},
        },
        vis_processor={"train": processor, "eval": processor},
        cache_dir=str(root.parent / "cache"),
        **options,
    )
    return build_dataset("captioned_images", config, split)


def as_jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def as_csv(path, records):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "box"])
        for record in records:
            box = "" if record["box"] is None else json.dumps(record["box"])
            writer.writerow([record["image"], record["text"], box])


def with_bytes(records, root, *, struct):
    rows = []
    for record in records:
        content = (root / record["image"]).read_bytes()
        image = {"bytes": content, "path": record["image"]} if struct else content
        rows.append({**record, "image": image})
    return pa.Table.from_pylist(rows)


def as_saved_dataset(folder, table):
    """Write what `save_to_disk` of Hugging Face `datasets` writes, with a left-over beside it."""
    folder.mkdir()
    half = len(table) // 2
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, part in zip(names, (table[:half], table[half:]), strict=True):
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, part.schema) as stream,
        ):
            stream.write_table(part, max_chunksize=2)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names]})
    )
    (folder / "cache-0123.arrow").write_bytes(b"not of the data set")


def as_tar(path, records, root, *, form):
    with tarfile.open(path, "w") as archive:
        for number, record in enumerate(records):
            content = json.dumps(record) if form == "json" else record["text"]
            members = {"png": (root / record["image"]).read_bytes(), form: content.encode()}
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{number:05d}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def stored(form, folder, records, root):
    path = folder / f"rows.{form}"
    if form == "jsonl":
        as_jsonl(path, records)
    elif form == "csv":
        as_csv(path, records)
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=3)
    elif form == "bytes.parquet":
        pq.write_table(with_bytes(records, root, struct=False), path, compression="zstd")
    elif form == "saved":
        as_saved_dataset(path, with_bytes(records, root, struct=True))
    else:
        as_tar(path, records, root, form="json")
    return str(path)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "bytes.parquet", "saved", "tar"])
def test_every_form_gives_the_same_captions_and_pixels(form, tmp_path, root, records):
    path = stored(form, tmp_path, records, root)
    nowhere = tmp_path / "empty"
    nowhere.mkdir()
    dataset = opened(path, nowhere if form in ("bytes.parquet", "saved", "tar") else root)
    dataset = pickle.loads(pickle.dumps(dataset))
    assert len(dataset) == 7
    for index in (6, 0, 3, 1, 2, 5, 4):
        row = dataset.row(index)
        assert row.text == records[index]["text"]
        assert row.fields == {"index": index}
        shown = np.asarray(dataset.drawn_image(row))
        whole = np.asarray(coloured(index))
        box = records[index]["box"] or [0, 0, 24, 18]
        left, top, right, bottom = (max(0, v) for v in box)
        np.testing.assert_array_equal(shown, whole[top:bottom, left:right])
        assert dataset.image(row).shape == (3, SIZE, SIZE)
    keys = [dataset.row(i).image_key for i in range(7)]
    assert len(set(keys)) == 7
    assert json.dumps(dataset.fingerprint()) and json.dumps(dataset.source(2))


def test_parts_of_one_image_have_keys_of_their_own(tmp_path, root):
    rows = [
        {"image": "0.png", "text": "x", "box": box} for box in ([0, 0, 5, 5], [0, 0, 6, 5], None)
    ]
    as_jsonl(tmp_path / "r.jsonl", [*rows, rows[0]])
    dataset = opened(str(tmp_path / "r.jsonl"), root)
    keys = [dataset.row(i).image_key for i in range(4)]
    assert len(set(keys)) == 3 and keys[0] == keys[3]
    samples = TrainingView(dataset, 0).collate([TrainingView(dataset, 0)[i] for i in range(4)])
    assert samples["image"].shape == (3, 3, SIZE, SIZE)
    assert samples["image_index"].tolist() == [0, 1, 2, 0]
    assert samples["text_input"] == ["x"] * 4


def test_a_tar_member_txt_is_the_caption(tmp_path, root, records):
    as_tar(tmp_path / "s.tar", records, root, form="txt")
    dataset = opened(str(tmp_path / "s.tar"), root, text_key="txt")
    assert [dataset.row(i).text for i in range(7)] == [r["text"] for r in records]


def test_fields_may_have_other_names_and_boxes_be_corner_and_size(tmp_path, root):
    table = pa.table({"file": ["2.png"], "cap": ["c"], "l": [3], "t": [4], "w": [8], "h": [5]})
    pq.write_table(table, tmp_path / "r.parquet")
    dataset = opened(
        str(tmp_path / "r.parquet"),
        root,
        image_key="file",
        text_key="cap",
        box_key=["l", "t", "w", "h"],
        box_format="xywh",
    )
    shown = np.asarray(dataset.drawn_image(dataset.row(0)))
    np.testing.assert_array_equal(shown, np.asarray(coloured(2))[4:9, 3:11])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": " \n"}, "empty text: text"),
        ({"text": None}, "missing field: text"),
        ({"text": 3}, "wrong type: text is int, expected text"),
        ({"image": "gone.png"}, "missing image: gone.png"),
        ({"image": "../x.png"}, "path leaves the image root: '../x.png'"),
        ({"image": None}, "missing image: no image, and none beside it"),
        ({"box": [1, 2, 3]}, "malformed box: box is [1, 2, 3], expected four numbers"),
        ({"box": [5, 5, 5, 9]}, "empty box: 0 x 4 pixels"),
        ({"box": [30, 1, 40, 9]}, "box outside the image: 30, 1, 40, 9 in 24 x 18 pixels"),
        ({"box": [1, 2, float("nan"), 9]}, "malformed box"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason(tmp_path, root, change, reason):
    good = {"image": "1.png", "text": "good", "box": [0, 0, 9, 9]}
    as_jsonl(tmp_path / "r.jsonl", [good, {**good, **change}])
    view = TrainingView(opened(str(tmp_path / "r.jsonl"), root), 0)
    assert not isinstance(view[0], RejectedRow)
    assert view[1].reason.startswith(reason)
    assert view[1].source["line"] == 2


def test_a_csv_row_with_too_few_cells_names_its_line(tmp_path, root):
    (tmp_path / "r.csv").write_text('image,text\n0.png,"two\nlines"\n1.png\n2.png,b\n')
    dataset = opened(str(tmp_path / "r.csv"), root)
    assert [dataset.row(i).text for i in (0, 2)] == ["two\nlines", "b"]
    with pytest.raises(RecordError, match="malformed row: 1 cells, but 2 columns"):
        dataset.row(1)
    assert dataset.source(1)["line"] == 4


def test_max_elements_takes_the_first_rows_or_the_released_shuffle(tmp_path, root, records):
    as_jsonl(tmp_path / "r.jsonl", records)
    first = opened(str(tmp_path / "r.jsonl"), root, max_elements=3)
    assert [first.record(i)["image"] for i in range(len(first))] == ["0.png", "1.png", "2.png"]
    drawn = opened(str(tmp_path / "r.jsonl"), root, max_elements=3, shuffle_data=True)
    order = np.random.default_rng(42).permutation(7)[:3]
    assert [drawn.record(i)["image"] for i in range(3)] == [f"{i}.png" for i in order]
    assert [drawn.source(i)["line"] for i in range(3)] == [i + 1 for i in order]
    assert [drawn.row(i).index for i in range(3)] == [0, 1, 2]
    assert first.fingerprint() != drawn.fingerprint()


def test_texts_can_be_had_without_images(tmp_path, records):
    as_jsonl(tmp_path / "r.jsonl", records)
    view = TrainingView(opened(str(tmp_path / "r.jsonl"), tmp_path, with_images=False), 0)
    samples = view.collate([view[0], view[4]])
    assert samples["text_input"] == [records[0]["text"], records[4]["text"]]
    assert "image" not in samples and "vision_features" not in samples


def test_wrong_settings_are_named(tmp_path, root):
    (tmp_path / "r.jsonl").write_text("{}")
    with pytest.raises(ValidationError, match="max_elements is 0; use 1 or more"):
        opened(str(tmp_path / "r.jsonl"), root, max_elements=0)
    with pytest.raises(ValidationError, match="box_key has 2 fields"):
        opened(str(tmp_path / "r.jsonl"), root, box_key=["x", "y"])
    (tmp_path / "r.arrow").write_bytes(b"no table")
    with pytest.raises(DataError, match="not an Arrow file"):
        opened(str(tmp_path / "r.arrow"), root)


def test_boxes_are_cut_to_every_pixel_they_touch():
    image = coloured(0)
    assert cut_out(image, (1.5, 2.2, 3.1, 4.0)).size == (3, 2)
    assert read_box({"b": "[1, 2, 3, 4]"}, "b", "xywh") == (1, 2, 4, 6)
    assert read_box({"b": None}, "b", "xyxy") is None


def laion(folder, root, **options):
    processor = {"name": "clip_image", "image_size": SIZE}
    config = LaionCaptionsConfig(
        data_dir=None if folder is None else str(folder),
        build_info={"annotations": {"train": {"storage": []}}, "images": {"storage": str(root)}},
        vis_processor={"train": processor},
        cache_dir=str(root / "cache"),
        **options,
    )
    return build_dataset("laion_220", config, "train")


def test_laion_captions_find_the_image_by_the_path_of_its_address(tmp_path):
    (tmp_path / "train2017").mkdir()
    coloured(1).save(tmp_path / "train2017" / "000000391895.jpg", quality=95)
    rows = [
        {
            "url": "http://images.cocodataset.org/train2017/000000391895.jpg",
            "caption": "A long caption.",
            "short_caption": "Short.",
        },
        {"url": "http://images.cocodataset.org/val2017/1.jpg", "caption": "b", "short_caption": ""},
        {"url": None, "caption": "c", "short_caption": "c"},
    ]
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), data / "lvis_caption_url.parquet")
    dataset = laion(data, tmp_path)
    row = dataset.row(0)
    assert row.text == "A long caption."
    assert row.fields["instance"] == rows[0]["url"]
    assert dataset.drawn_image(row).size == (24, 18)
    short = laion(data / "lvis_caption_url.parquet", tmp_path, short=True)
    assert short.row(0).text == "Short."
    for wrong, index, reason in (
        (dataset, 1, "missing image: val2017/1.jpg"),
        (dataset, 2, "missing field: url"),
        (short, 1, "empty text: short_caption"),
    ):
        with pytest.raises(RecordError, match=reason):
            wrong.row(index)
    assert torch.equal(dataset.image(row), short.image(short.row(0)))


def test_laion_captions_say_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no captions; it should hold the Parquet file"):
        laion(tmp_path, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises((ConfigError, DataError), match="data_dir"):
        laion(None, tmp_path)
