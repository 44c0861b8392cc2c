"""Caption data: img2dataset folders and tar shards give the same rows, in one order."""

import io
import json
import tarfile

import pytest
from PIL import Image

from lavis.common.errors import RecordError
from lavis.datasets.builders import build_dataset
from lavis.datasets.config import LaionConfig

CAPTIONS = {
    "000000": {"000000002": "A Red bus!", "000000000": "Two dogs"},
    "000001": {"000010001": "Café (old)"},
}


def jpeg(key):
    buffer = io.BytesIO()
    Image.effect_noise((20 + int(key) % 7, 15), 40).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    for folder, captions in CAPTIONS.items():
        (tmp_path / folder).mkdir()
        with tarfile.open(tmp_path / f"{folder}.tar", "w") as archive:
            for key, caption in sorted(captions.items()):
                record = {"caption": caption, "similarity": 0.25, "key": key, "url": "u", "NSFW": 1}
                data = {"jpg": jpeg(key), "txt": b"", "json": json.dumps(record).encode()}
                for suffix, content in data.items():
                    (tmp_path / folder / f"{key}.{suffix}").write_bytes(content)
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        (tmp_path / f"{folder}.parquet").write_bytes(b"a log of img2dataset")
    return tmp_path


def open_laion(root, storage):
    config = LaionConfig(
        build_info={
            "annotations": {"test": {"storage": storage}},
            "images": {"storage": str(root), "ann_root": str(root)},
        },
        vis_processor={"eval": {"name": "blip_image_eval", "image_size": 16}},
        text_processor={"eval": {"name": "blip_unified_vqa", "prompt": ""}},
    )
    return build_dataset("laion_sample_extracted", config, "test")


def test_rows_stand_sorted_and_hold_the_published_fields(root):
    dataset = open_laion(root, ["000000", "000001"])
    rows = [dataset.row(i) for i in range(len(dataset))]
    assert [row.fields["instance"] for row in rows] == ["000000000", "000000002", "000010001"]
    assert rows[1].text == "what is in this image? answer: a red bus!"
    assert list(rows[1].fields) == ["index", "instance", "similarity", "caption"]
    assert rows[1].fields["similarity"] == 0.25
    assert rows[1].fields["caption"] == "A Red bus!"
    assert dataset.record(2)["image"] == "000001/000010001.jpg"
    assert dataset.image(rows[0]).shape == (3, 16, 16)
    assert len({row.image_key for row in rows}) == 3


def test_shards_give_the_same_rows_and_pixels(root):
    folders = open_laion(root, ["000000", "000001"])
    shards = open_laion(root, ["{000000..000001}.tar"])
    assert len(folders) == len(shards) == 3
    for index in range(3):
        first, second = folders.row(index), shards.row(index)
        assert (first.text, first.fields) == (second.text, second.fields)
        pixels = folders.drawn_image(first).tobytes()
        assert pixels == shards.drawn_image(second).tobytes()
        assert {**shards.record(index), "image": 0} == {**folders.record(index), "image": 0}


def test_a_folder_of_shards_is_read_in_order(root):
    for folder in CAPTIONS:
        for file in (root / folder).iterdir():
            file.unlink()
        (root / folder).rmdir()
    dataset = open_laion(root, ["."])
    assert [dataset.row(i).fields["instance"] for i in range(3)] == [
        "000000000",
        "000000002",
        "000010001",
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "missing sidecar: 000000000.json"),
        ({"similarity": 1}, "missing field: caption"),
        ({"caption": 3}, "wrong type: caption is int"),
        ({"caption": " "}, "empty text: caption"),
    ],
)
def test_bad_sidecars_are_reported(root, record, reason):
    sidecar = root / "000000" / "000000000.json"
    sidecar.unlink() if record is None else sidecar.write_text(json.dumps(record))
    dataset = open_laion(root, ["000000"])
    with pytest.raises(RecordError, match=reason):
        dataset.row(0)
    assert dataset.row(1).fields["instance"] == "000000002"
    assert dataset.source(0)["file"].endswith("000000000.jpg")
