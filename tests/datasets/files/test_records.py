"""Record files: every format gives the same rows, the index is small, lines keep their numbers."""

import gzip
import io
import json
import pickle
import tarfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.formats import expand_paths, open_records
from lavis.datasets.files.records import JsonLinesFile

TOKENS = ("question", "answer", "rationale", "region", "region_all", "references")


def as_tar(path, records, image, *, with_image=True):
    with tarfile.open(path, "w") as archive:
        for number, record in enumerate(records):
            members = {"json": json.dumps(record).encode()}
            if with_image:
                members["png"] = image
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"part/{number:06d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture
def records(lck):
    return [lck.record(i, answer=["Café", "😀", i, [1]]) for i in range(25)]


@pytest.fixture
def stored(lck, images, records):
    """The same records in every format: format -> path."""
    plain = lck.write(images / "r.jsonl", records)
    text = (images / "r.jsonl").read_bytes()
    (images / "r.jsonl.gz").write_bytes(gzip.compress(text))
    with pa.CompressedOutputStream(pa.OSFile(str(images / "r.jsonl.zst"), "wb"), "zstd") as out:
        out.write(text)
    (images / "r.json").write_text(json.dumps(records))
    columns = {
        key: [json.dumps(r[key]) if key in TOKENS else r[key] for r in records]
        for key in records[0]
    }
    pq.write_table(pa.table(columns), images / "r.parquet", row_group_size=4)
    as_tar(images / "r.tar", records, (images / "a.png").read_bytes())
    names = {f: str(images / f"r.{f}") for f in ("jsonl.gz", "jsonl.zst", "json")}
    return {
        "jsonl": plain,
        **names,
        "parquet": str(images / "r.parquet"),
        "tar": str(images / "r.tar"),
    }


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.zst", "json", "parquet", "tar"])
def test_every_format_gives_the_same_rows_and_images(lck, images, stored, records, form):
    plain = lck.open(images, stored["jsonl"])
    other = pickle.loads(pickle.dumps(lck.open(images, stored[form])))
    assert len(other) == len(plain) == 25
    for index in (24, 0, 7, 8, 3, 24):
        first, second = plain.row(index), other.row(index)
        assert second.text == first.text
        assert second.fields == first.fields
        drawn = plain.drawn_image(first).tobytes()
        assert other.drawn_image(second).tobytes() == drawn
        kept = {k: v for k, v in other.record(index).items() if k in records[index]}
        assert kept == records[index]
    assert json.dumps(other.fingerprint())


def test_rows_of_many_files_stand_one_after_another(lck, images, stored, records):
    store = open_records([stored["tar"], stored["jsonl"], stored["parquet"]])
    assert len(store) == 75
    assert store.read(24)["index"] == "test-24"
    assert store.read(25)["index"] == "test-0"
    assert store.place(26) == {"file": stored["jsonl"], "line": 2}
    assert store.place(53) == {"file": stored["parquet"], "row": 3}
    assert store.image(3).offset > 0
    assert store.image(30) is None
    with pytest.raises(IndexError, match="row 75 of 75"):
        store.find(75)


def test_compressed_files_are_unpacked_once_and_again_when_they_change(lck, images, stored):
    folder = images / "unpacked"
    lck.open(images, stored["jsonl.gz"])
    lck.open(images, stored["jsonl.gz"])
    assert len(list(folder.glob("*.jsonl"))) == 1
    (images / "r.jsonl.gz").write_bytes(gzip.compress(json.dumps(lck.record(99)).encode()))
    assert lck.open(images, stored["jsonl.gz"]).row(0).fields["instance"] == "test-99"
    assert len(list(folder.glob("*.jsonl"))) == 2


def test_a_cut_archive_is_refused_and_leaves_nothing_behind(images, stored):
    data = (images / "r.jsonl.gz").read_bytes()
    (images / "cut.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz: cannot be unpacked"):
        open_records([str(images / "cut.jsonl.gz")], cache_dir=str(images / "c"))
    assert [p.suffix for p in (images / "c").iterdir()] == [".lock"]


def test_malformed_lines_keep_their_row_and_blank_lines_have_none(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": 2\n   \n\xff\xfe\n{"a": 3}')
    file = JsonLinesFile(str(path))
    assert len(file) == 4
    assert [file.place(i)["line"] for i in range(4)] == [1, 3, 5, 6]
    assert file.read(0) == {"a": 1}
    assert file.read(3) == {"a": 3}
    with pytest.raises(RecordError, match="malformed line: Expecting ',' delimiter at character 8"):
        file.read(1)
    with pytest.raises(RecordError, match=r"malformed line: .*can't decode"):
        file.read(2)


def test_half_a_surrogate_pair_is_malformed(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n')
    file = JsonLinesFile(str(tmp_path / "r.jsonl"))
    assert file.read(0) == {"a": "😀"}
    with pytest.raises(RecordError, match=r"malformed line: .*surrogates not allowed"):
        file.read(1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9), max_size=2), max_size=9),
    st.lists(st.integers(0, 2), min_size=10, max_size=10),
    st.booleans(),
)
def test_any_lines_come_back(tmp_path_factory, objects, blanks, last_line_ends):
    path = tmp_path_factory.mktemp("lines") / "r.jsonl"
    text = "".join("\n" * n + json.dumps(o) + "\n" for o, n in zip(objects, blanks, strict=False))
    path.write_text(text if last_line_ends else text.removesuffix("\n"), encoding="utf-8")
    file = JsonLinesFile(str(path))
    assert [file.read(i) for i in range(len(file))] == objects
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(lines[file.place(i)["line"] - 1]) for i in range(len(file))] == objects


def test_the_index_of_200_000_rows_is_small(tmp_path):
    path = tmp_path / "big.jsonl"
    line = json.dumps({"index": 123456, "question": ["x"] * 30}) + "\n"
    with open(path, "w") as file:
        for _ in range(200):
            file.write(line * 1000)
    tracemalloc.start()
    store = open_records([str(path)])
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) == 200_000
    assert kept < 200_000 * 24
    assert peak < 200_000 * 80 + 2 * (1 << 24)
    assert store.read(199_999)["index"] == 123456
    assert store.place(150_000)["line"] == 150_001


def test_reading_parquet_at_random_keeps_few_row_groups(images, stored):
    (file,) = open_records([stored["parquet"]]).files
    for row in np.random.default_rng(0).integers(0, 25, 40).tolist():
        assert file.read(row)["index"] == f"test-{row}"
        assert len(file._groups) <= 2


def test_a_shard_may_lack_a_record_or_an_image(images):
    with tarfile.open(images / "s.tar", "w") as archive:
        for name, data in (
            ("a.json", b'{"x": 1}'),
            ("b.png", b"p"),
            ("c.json", b"{"),
            ("d.t", b""),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (file,) = open_records([str(images / "s.tar")]).files
    assert len(file) == 3  # d holds neither
    assert file.read(0) == {"x": 1, "key": "a"}
    assert file.image(0) is None
    with pytest.raises(RecordError, match=r"missing sidecar: b\.json in s\.tar"):
        file.read(1)
    with pytest.raises(RecordError, match="malformed line"):
        file.read(2)


def test_a_million_tar_headers_would_not_stay_in_memory(images):
    as_tar(images / "many.tar", [{"n": i} for i in range(3000)], b"", with_image=False)
    tracemalloc.start()
    store = open_records([str(images / "many.tar")])
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) == 3000
    assert kept < 3000 * 60 + 20_000
    assert peak < 3000 * 200 + 100_000
    assert store.read(2999)["n"] == 2999


def test_patterns_and_ranges(tmp_path):
    for number in range(8, 12):
        (tmp_path / f"s-{number:03d}.jsonl").write_text("{}\n")
    ranged = expand_paths([str(tmp_path / "s-{009..011}.jsonl")])
    assert [p[-9:-6] for p in ranged] == ["009", "010", "011"]
    assert len(expand_paths([str(tmp_path / "*.jsonl")])) == 4
    with pytest.raises(DataError, match="no file matches"):
        expand_paths([str(tmp_path / "*.tar")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tar.gz", b"", "a compressed tar has no random access; unpack it"),
        ("x.tar", b"no tar" * 200, "not a tar file, or cut short"),
        ("x.parquet", b"no", "not a Parquet file"),
        ("gone.jsonl", None, "no such record file or folder"),
    ],
)
def test_files_that_cannot_be_read_say_so(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_records([str(tmp_path / name)])


def test_an_empty_file_is_refused_by_the_data_set(lck, images):
    Image.new("RGB", (4, 4)).save(images / "b.png")
    (images / "r.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="unified_vqa_binary, split test: no records in"):
        lck.open(images, str(images / "r.jsonl"))


@pytest.mark.parametrize("line", ['{"a": 1, "b": 0, "a": 2}', '{"b": [{"a": 1, "a": 1}]}'])
def test_a_key_twice_in_one_object_is_refused_in_every_form(tmp_path, line):
    good = '{"a": 3, "b": {"a": 4}}'
    (tmp_path / "a.jsonl").write_text(f"{line}\n{good}\n")
    (tmp_path / "b.json").write_text(f"[{line},\n {good}]")
    pq.write_table(pa.table({"c": [line, good]}), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.json", "c.parquet"):
        store = open_records([str(tmp_path / name)], cache_dir=str(tmp_path / "cache"))
        with pytest.raises(RecordError, match="'a' comes twice in one object"):
            store.read(0)
        assert store.read(1)


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_packed_lists_are_read_as_lists(tmp_path, packing):
    content = b"\xef\xbb\xbf" + json.dumps([{"a": "é"}, {"a": 2}], indent=1).encode()
    codec = {"gz": gzip.compress, "zst": _zstd}[packing]
    (tmp_path / f"l.json.{packing}").write_bytes(codec(content))
    store = open_records([str(tmp_path / f"l.json.{packing}")], cache_dir=str(tmp_path / "cache"))
    assert [store.read(row) for row in range(len(store))] == [{"a": "é"}, {"a": 2}]


def _zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.jsonl.zst"])
def test_an_empty_packed_file_is_a_lost_one(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=f"{name}: empty"):
        open_records([str(tmp_path / name)], cache_dir=str(tmp_path / "cache"))


def test_a_file_that_is_meant_twice_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    for paths in (["a.jsonl", "a.jsonl"], ["a.jsonl", "./a.jsonl"], ["*.jsonl"]):
        with pytest.raises(DataError, match="named twice"):
            open_records([str(tmp_path / path) for path in paths])
