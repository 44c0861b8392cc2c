"""Folders of records: what holds rows is read, the rest is said, two meanings are refused."""

import gzip
import io
import json
import logging
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.arrow import open_tables
from lavis.datasets.files.formats import open_records


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    return path


def lines(*names):
    return "".join(json.dumps({"caption": name}) + "\n" for name in names).encode()


def pair(folder, stem, ending=".jpg", sidecar=".json"):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), (200, 0, 0)).save(folder / f"{stem}{ending}", "JPEG")
    if sidecar:
        (folder / f"{stem}{sidecar}").write_text(json.dumps({"caption": stem}))


def shard(path, *keys):
    with tarfile.open(path, "w") as archive:
        for key in keys:
            data = json.dumps({"caption": key}).encode()
            info = tarfile.TarInfo(f"{key}.json")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def captions(store):
    return [store.read(row)["caption"] for row in range(len(store))]


def records(folder, tmp_path):
    return open_records([str(folder)], cache_dir=str(tmp_path / "cache"))


def test_record_files_of_every_kind_are_all_read(folder, tmp_path):
    (folder / "part-0.jsonl").write_bytes(lines("a", "b", "c"))
    (folder / "part-1.JSONL.GZ").write_bytes(gzip.compress(lines("d", "e", "f")))
    with pa.CompressedOutputStream(pa.OSFile(str(folder / "part-2.jsonl.zst"), "wb"), "zstd") as f:
        f.write(lines("g", "h", "i"))
    pq.write_table(pa.table({"caption": ["j"]}), folder / "part-3.PARQUET")
    shard(folder / "part-4.Tar", "k", "l")
    (folder / "part-5").mkdir()
    (folder / "part-5" / "x.jsonl").write_bytes(lines("m"))
    assert captions(records(folder, tmp_path)) == list("abcdefghijklm")
    assert captions(open_tables([str(folder)], cache_dir=str(tmp_path / "c"))) == list(
        "abcdefghijklm"
    )


def test_tables_and_lines_of_captions_are_all_read(folder, tmp_path):
    (folder / "a.csv").write_text("caption\na\n")
    (folder / "b.jsonl").write_bytes(lines("b"))
    pq.write_table(pa.table({"caption": ["c"]}), folder / "c.parquet")
    store = open_tables([str(folder)], cache_dir=str(tmp_path / "c"))
    assert captions(store) == ["a", "b", "c"]


def test_img2dataset_shards_with_their_logs_and_a_preview(folder, tmp_path, caplog):
    for number in range(3):
        for place in range(2):
            pair(folder / f"{number:05d}", f"{number}{place}")
        pq.write_table(pa.table({"url": ["u"] * 4}), folder / f"{number:05d}.parquet")
        (folder / f"{number:05d}_stats.json").write_text("{}")
    pair(folder, "preview", sidecar="")
    (folder / "_tmp").mkdir()
    (folder / "empty").mkdir()
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "notes.txt").write_text("x")
    with caplog.at_level(logging.INFO):
        store = records(folder, tmp_path)
    assert captions(store) == ["00", "01", "10", "11", "20", "21"]
    said = "\n".join(record.getMessage() for record in caplog.records)
    for expected in (
        "passed over 3 logs of img2dataset (00000.parquet, 00001.parquet, 00002.parquet)",
        "passed over 3 counts of img2dataset (00000_stats.json",
        "passed over 1 images without a record (.json) beside any of them (data/)",
        "passed over 2 of the system, or unfinished (`.` or `_` first) (.DS_Store, _tmp)",
        "passed over 1 folders without records (empty)",
        "passed over 1 files .txt (notes.txt)",
    ):
        assert expected in said, said
    assert captions(open_tables([str(folder)], cache_dir=str(tmp_path / "c"))) == captions(store)


def test_tar_shards_with_their_logs(folder, tmp_path):
    shard(folder / "00000.tar", "a", "b")
    pq.write_table(pa.table({"url": ["u"]}), folder / "00000.parquet")
    assert captions(records(folder, tmp_path)) == ["a", "b"]
    assert captions(open_tables([str(folder)], cache_dir=str(tmp_path / "c"))) == ["a", "b"]


def test_endings_in_capitals_and_captions_as_text_beside_images(folder, tmp_path):
    pair(folder, "a", ".JPG", ".JSON")
    pair(folder, "b", ".Jpeg")
    (folder / "a.txt").write_text("a")
    store = records(folder, tmp_path)
    assert captions(store) == ["a", "b"]
    assert store.image(0).name == "data/a.JPG"


def test_images_with_a_record_for_some_keep_the_others_as_rejects(folder, tmp_path):
    pair(folder, "a")
    pair(folder, "b", sidecar="")
    pair(folder, "._c", sidecar="")
    store = records(folder, tmp_path)
    assert len(store) == 2
    with pytest.raises(RecordError, match=r"missing sidecar: b\.json"):
        store.read(1)


def test_two_images_of_one_record_are_refused_by_name(folder, tmp_path):
    pair(folder, "a")
    pair(folder, "a", ".png")
    pair(folder, "b")
    store = records(folder, tmp_path)
    for row in (0, 1):
        with pytest.raises(RecordError, match=r"duplicate image: two images share a\.json"):
            store.read(row)
    assert store.read(2)["caption"] == "b"


@pytest.mark.parametrize("second", ["part-0.jsonl.gz", "part-0.parquet", "part-0.tar"])
def test_one_name_in_two_forms_is_refused(folder, tmp_path, second):
    (folder / "part-0.jsonl").write_bytes(lines("a"))
    (folder / second).write_bytes(b"")
    with pytest.raises(DataError, match="which may be the same records in two forms; name the"):
        records(folder, tmp_path)


def test_images_with_records_beside_a_record_file_are_refused(folder, tmp_path):
    pair(folder, "a")
    (folder / "all.jsonl").write_bytes(lines("a"))
    with pytest.raises(DataError, match=r"1 images with records .* record files \(all\.jsonl\)"):
        records(folder, tmp_path)


def test_a_record_file_beside_its_images_is_read(folder, tmp_path, caplog):
    pair(folder, "a", sidecar="")
    (folder / "all.jsonl").write_bytes(lines("a", "b"))
    with caplog.at_level(logging.INFO):
        assert captions(records(folder, tmp_path)) == ["a", "b"]
    assert "1 images without a record" in caplog.text


def test_a_folder_without_records_says_what_it_holds(folder, tmp_path):
    with pytest.raises(DataError, match=r"no records in it\. It holds nothing"):
        records(folder, tmp_path)
    pair(folder / "inner", "a", sidecar="")
    (folder / "list.json").write_text("[]")
    expected = r"1 files \.json beside no image .*\(list\.json\); 1 images without a record"
    with pytest.raises(DataError, match=expected):
        records(folder, tmp_path)


def test_a_link_to_a_folder_above_ends_nothing(folder, tmp_path):
    pair(folder / "in", "a")
    os.symlink(folder, folder / "in" / "loop")
    assert captions(records(folder, tmp_path)) == ["a"]


def test_names_that_are_not_utf8_are_shown_escaped(folder, tmp_path):
    pair(folder, "caf\udce9", sidecar="")
    (folder / "caf\udce9.json").write_text('{"caption": "x"}')
    store = records(folder, tmp_path)
    assert store.read(0) == {"caption": "x", "key": "caf\\xe9"}
    assert store.image(0).name == "data/caf\\xe9.jpg"
    assert store.place(0)["file"].endswith("caf\\xe9.jpg")
    json.dumps([store.place(0), store.identity()], ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["x.zip", "x.csv", "x.arrow", "x.jsonl.bz2"])
def test_forms_that_are_not_read_are_refused_in_words(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match="records are not read from this form"):
        open_records([str(tmp_path / name)])


@pytest.mark.parametrize("state", ["{}", "[]", '{"_data_files": [{"name": "x"}]}', "{", "[" * 9999])
def test_a_broken_list_of_files_is_named(folder, tmp_path, state):
    (folder / "state.json").write_text(state)
    with pytest.raises(DataError, match=r"state\.json: not the list of files"):
        open_tables([str(folder)], cache_dir=str(tmp_path))
