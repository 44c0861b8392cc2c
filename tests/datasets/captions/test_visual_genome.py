"""Visual Genome: published JSON and tables give the same regions, in little memory."""

import gzip
import json
import multiprocessing
import pickle
import random
import re
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.datasets.base import TrainingView
from lavis.datasets.builders import build_dataset
from lavis.datasets.captions.config import CroppedVgConfig
from lavis.datasets.files import json_lists
from lavis.datasets.files.items import read_list
from lavis.datasets.rows import RejectedRow

WIDTH, HEIGHT = 60, 40


def image(number):
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [rows * 6, columns * 4, np.full_like(rows, number * 40)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def region(number, image_id, phrase, x, y, width, height):
    return {
        "region_id": number,
        "width": width,
        "height": height,
        "image_id": image_id,
        "phrase": phrase,
        "y": y,
        "x": x,
    }


ENTRIES = [
    {
        "regions": [
            region(1382, 1, "the clock is green in colour", 10, 5, 20, 30),
            region(1383, 1, "reaches over every edge", -7, -3, 500, 90),
            region(1384, 1, "no width", 3, 3, 0, 9),
            region(1385, 1, " ", 3, 3, 9, 9),
        ],
        "id": 1,
    },
    {"regions": [], "id": 2},
    {
        "regions": [
            region(2001, 3, 'a "café"\u2028sign', 40, 30, 30, 30),
            region(2002, 3, "beside the image", 60, 0, 5, 5),
            region(2003, 99, "its image is gone", 0, 0, 5, 5),
        ],
        "id": 3,
    },
]
GOOD = {  # row -> (image, box that is shown)
    0: (1, (10, 5, 30, 35)),
    1: (1, (0, 0, WIDTH, HEIGHT)),
    4: (3, (40, 30, WIDTH, HEIGHT)),
}
BAD = {
    2: "empty box: 0 x 9 pixels",
    3: "empty text: phrase",
    5: "box outside the image: 60, 0, 65, 5 in 60 x 40 pixels",
    6: "missing image: 99.jpg",
}


@pytest.fixture
def folder(tmp_path):
    """`data_dir` with images in the two published folders."""
    for name, number in (("VG_100K", 1), ("VG_100K_2", 3)):
        (tmp_path / "vg" / name).mkdir(parents=True)
        image(number).save(tmp_path / "vg" / name / f"{number}.png")
    return tmp_path / "vg"


def opened(data_dir, cache, *, storage=(), images="", **options):
    processor = {"name": "clip_image", "image_size": 16}
    config = CroppedVgConfig(
        data_dir=None if data_dir is None else str(data_dir),
        build_info={
            "annotations": {"train": {"storage": list(storage)}},
            "images": {"storage": str(images)},
        },
        vis_processor={"train": processor},
        cache_dir=str(cache),
        **options,
    )
    return build_dataset("cropped_vg", config, "train")


def write_json(folder, form):
    text = json.dumps(ENTRIES)
    if form == "zip":
        with zipfile.ZipFile(folder / "region_descriptions.json.zip", "w") as archive:
            archive.writestr("region_descriptions.json", text)
    elif form == "gz":
        (folder / "region_descriptions.json.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (folder / "region_descriptions.json").write_text(text)


def table(folder, *, struct_of_lists=False, with_bytes=True):
    """Return what the hub's table holds: a row for each image, with its regions in a list."""
    rows = []
    for entry in ENTRIES:
        regions = [r for r in entry["regions"] if r["image_id"] != 99]
        if struct_of_lists:
            regions = {k: [r[k] for r in regions] for k in ENTRIES[0]["regions"][0]}
        path = next(folder.glob(f"*/{entry['id']}.png"), None)
        content = path.read_bytes() if path and with_bytes else None
        image = {"bytes": content, "path": f"{entry['id']}.png"}
        rows.append({"image": image, "image_id": entry["id"], "regions": regions})
    return pa.Table.from_pylist(rows)


def check(dataset, *, gone=True):
    dataset = pickle.loads(pickle.dumps(dataset))
    phrases = [r["phrase"] for e in ENTRIES for r in e["regions"]]
    assert len(dataset) == len(phrases) - (not gone)
    for index, (number, box) in GOOD.items():
        row = dataset.row(index)
        assert row.text == phrases[index]
        assert row.fields["image"] == number
        left, top, right, bottom = box
        np.testing.assert_array_equal(
            np.asarray(dataset.drawn_image(row)),
            np.asarray(image(number))[top:bottom, left:right],
        )
    view = TrainingView(dataset, 0)
    for index, reason in BAD.items():
        if gone or index != 6:
            item = view[index]
            assert isinstance(item, RejectedRow) and item.reason.startswith(reason)
    assert dataset.row(0).fields["instance"] == "1382"
    assert json.dumps(dataset.fingerprint()) and json.dumps(dataset.source(1))


@pytest.mark.parametrize("form", ["json", "zip", "gz"])
def test_the_published_json_gives_crops_of_the_images(folder, tmp_path, form):
    write_json(folder, form)
    check(opened(folder, tmp_path / "cache"))


def test_images_may_lie_flat_in_a_folder_of_their_own(folder, tmp_path):
    write_json(tmp_path, "json")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in folder.glob("*/*.png"):
        path.rename(flat / path.name)
    check(opened(tmp_path / "region_descriptions.json", tmp_path / "cache", images=flat))


@pytest.mark.parametrize("struct_of_lists", [False, True])
def test_a_table_with_images_needs_no_files(folder, tmp_path, struct_of_lists):
    data = tmp_path / "data"
    data.mkdir()
    rows = table(folder, struct_of_lists=struct_of_lists)
    pq.write_table(rows[:1], data / "train-00000-of-00002.parquet", compression="zstd")
    pq.write_table(rows[1:], data / "train-00001-of-00002.parquet")
    check(opened(data, tmp_path / "cache"), gone=False)


def test_a_table_of_save_to_disk_without_bytes_finds_the_files(folder, tmp_path):
    data = tmp_path / "saved" / "train"
    data.mkdir(parents=True)
    rows = table(folder, with_bytes=False)
    with (
        pa.OSFile(str(data / "data-0.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, rows.schema) as stream,
    ):
        stream.write_table(rows)
    (data / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    check(opened(tmp_path / "saved", tmp_path / "cache", images=folder), gone=False)


def test_a_changed_file_gets_a_new_index_and_an_unchanged_one_keeps_it(folder, tmp_path):
    write_json(folder, "json")
    assert len(opened(folder, tmp_path / "cache")) == 7
    (index,) = (tmp_path / "cache").glob("*.arrow")
    before = index.stat().st_mtime_ns
    assert len(opened(folder, tmp_path / "cache")) == 7
    assert index.stat().st_mtime_ns == before
    (folder / "region_descriptions.json").write_text(json.dumps(ENTRIES[:1]))
    assert len(opened(folder, tmp_path / "cache")) == 4
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_regions_with_wrong_values_are_rejects_and_do_not_stop_the_rest(folder, tmp_path):
    whole = region(1, 1, "good", 0, 0, 9, 9)
    broken = [
        {**whole, "phrase": None},
        {**whole, "x": "left"},
        {**whole, "phrase": "half a pair: \ud800"},
        {**whole, "image_id": 2**70},
        "not an object",
        whole,
    ]
    text = json.dumps([{"id": 1, "regions": broken}])
    (folder / "region_descriptions.json").write_text(text)
    dataset = opened(folder, tmp_path / "cache")
    reasons = []
    for index in range(5):
        with pytest.raises(RecordError) as error:
            dataset.row(index)
        reasons.append(error.value.reason)
    assert reasons == [
        "missing field: phrase",
        "malformed box: x/y/width/height is [None, 0.0, 9.0, 9.0], expected four numbers",
        "missing field: phrase",
        "missing field: image_id",
        "missing field: phrase",
    ]
    assert dataset.row(5).text == "good"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": 1}', r"expected '\["),
        ('[{"id": 1, "regions": []}', "the file is cut off"),
        ('[{"id": 1, "regions": [}]', "Expecting value near"),
        ('[{"id": 1, "regions": []}]', "no regions"),
        ('[{"id": 1}]', "an object with a list 'regions' was expected"),
    ],
)
def test_a_file_that_is_something_else_is_named(folder, tmp_path, text, message):
    (folder / "region_descriptions.json").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        opened(folder, tmp_path / "cache")
    assert "region_descriptions.json" in str(error.value)


def test_missing_sources_say_what_to_put_where(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=re.escape(f"it should hold {CroppedVgConfig.LOCAL_FILES}")):
        opened(tmp_path / "empty", tmp_path / "cache")
    with pytest.raises(ConfigError, match="data_dir: no such file or folder"):
        opened(tmp_path / "gone", tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises((ConfigError, DataError), match=r"cropped_vg\.data_dir"):
        opened(None, tmp_path / "cache")


values = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(values, max_size=8), chunk=st.integers(1, 40), indent=st.sampled_from([None, 1])
)
def test_a_list_is_read_in_pieces_of_any_size(tmp_path_factory, items, chunk, indent):
    path = tmp_path_factory.mktemp("list") / "x.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "_CHUNK", chunk)
        assert list(read_list(str(path))) == items


def _count(folder, cache, start, found):
    start.wait()
    found.put(len(opened(folder, cache)))


def test_processes_that_come_at_once_build_one_index(folder, tmp_path):
    write_json(folder, "json")
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    arguments = (folder, tmp_path / "cache", start, found)
    processes = [context.Process(target=_count, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    assert [found.get(timeout=30) for _ in processes] == [7] * 3
    for process in processes:
        process.join()
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1


_SIZED = """
import dataclasses, json, pathlib, random, resource, sys, time
from lavis.datasets.builders import build_dataset
from lavis.datasets.captions.config import CroppedVgConfig
folder = sys.argv[1]
config = CroppedVgConfig(
    data_dir=folder, with_images=False, cache_dir=folder + "/cache",
    build_info={"annotations": {"train": {"storage": []}}},
)
(pathlib.Path(folder) / "small.json").write_text(json.dumps([{"id": 1, "regions": [{}]}]))
small = dataclasses.replace(config, data_dir=folder + "/small.json")
build_dataset("cropped_vg", small, "train")  # imports take memory, too
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.monotonic()
dataset = build_dataset("cropped_vg", config, "train")
built = time.monotonic() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dice = random.Random(0)
begin = time.monotonic()
texts = [dataset.row(dice.randrange(len(dataset))).text for _ in range(2000)]
reading = time.monotonic() - begin
print(json.dumps([len(dataset), built, (peak - before) / 1024, reading, texts[:3]]))
"""


def test_200_000_regions_take_seconds_and_little_memory(tmp_path):
    dice = random.Random(1)
    number = 0
    with open(tmp_path / "region_descriptions.json", "w") as file:
        file.write("[")
        for image in range(4000):
            regions = []
            for _ in range(50):
                number += 1
                phrase = f"region {number} of an image that shows many things"
                regions.append(region(number, image, phrase, dice.randrange(400), 7, 30, 20))
            file.write((", " if image else "") + json.dumps({"regions": regions, "id": image}))
        file.write("]")
    size = (tmp_path / "region_descriptions.json").stat().st_size / 2**20
    done = subprocess.run(
        [sys.executable, "-c", _SIZED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    count, seconds, memory, reading, texts = json.loads(done.stdout)
    assert count == 200_000 and size > 25
    assert all(text.startswith("region ") for text in texts)
    assert memory < 60  # MiB: a batch, not the file and not the rows
    assert seconds < 30 and reading < 10  # on a machine that does other things as well
