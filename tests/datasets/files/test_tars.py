"""Tar shards: WebDataset's samples, nothing lost without a word, and shards that are not whole."""

import gzip
import io
import json
import logging
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavis.common.errors import DataError, RecordError
from lavis.datasets.files.formats import open_records
from lavis.datasets.files.tar_members import tar_members
from lavis.datasets.files.tars import TarFile

BLOCK = 512


def packed(members, *, form=tarfile.PAX_FORMAT):
    """Return a tar of (name, bytes or a `TarInfo`'s changes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, dict):
                for key, value in data.items():
                    setattr(info, key, value)
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def samples(keys, size=700):
    """Return members `<key>.jpg` (no image, `size` bytes) and `<key>.json`."""
    found = []
    for key in keys:
        found.append((f"{key}.jpg", key.encode()[:1] * size))
        found.append((f"{key}.json", json.dumps({"caption": key}).encode()))
    return found


def opened(folder, content, name="s.tar"):
    (folder / name).write_bytes(content)
    return TarFile(str(folder / name))


def captions(file):
    return [file.read(row)["caption"] for row in range(len(file))]


def reason(file, row):
    with pytest.raises(RecordError) as caught:
        file.read(row)
    with pytest.raises(RecordError):
        if caught.value.reason.startswith("missing sidecar"):
            raise caught.value
        file.image(row)
    return caught.value.reason


def test_keys_end_at_the_first_dot_of_the_last_part(tmp_path):
    file = opened(
        tmp_path,
        packed(
            [
                ("./part.a/x.JPG", b"photo"),
                ("./part.a/x.Json", b'{"caption": "x"}'),
                ("./part.a/x.seg.png", b"mask"),
                ("part.b/y.jpg", b"other"),
                ("part.b/y.json", b'{"caption": "y"}'),
                ("part.b/y.meta.json", b"{"),
            ]
        ),
    )
    assert captions(file) == ["x", "y"]
    assert [file.read(row)["key"] for row in (0, 1)] == ["x", "y"]
    shown = [file.image(row) for row in (0, 1)]
    assert [p.name for p in shown] == ["s.tar/part.a/x", "s.tar/part.b/y"]
    content = (tmp_path / "s.tar").read_bytes()
    assert [content[p.offset : p.offset + p.size] for p in shown] == [b"photo", b"other"]


def test_files_of_the_system_and_other_kinds_are_passed_over_and_counted(tmp_path, caplog):
    members = samples("ab")
    for name in ("._a.jpg", ".DS_Store", "d/._b.json", "README", "a.cls"):
        members.insert(1, (name, b"x"))
    members.append(("b.seg.png", b"mask"))
    members.insert(0, ("folder", {"type": tarfile.DIRTYPE}))
    with caplog.at_level(logging.INFO):
        file = opened(tmp_path, packed(members))
    assert captions(file) == ["a", "b"]
    said = [record.getMessage() for record in caplog.records]
    assert any("passed over 3 files of the system" in line for line in said)
    assert any("passed over 1 members without an ending" in line for line in said)
    assert any("passed over 1 members .cls" in line for line in said)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (("a.jpg", b"again"), "duplicate member: a.jpg comes twice in s.tar"),
        (("a.JSON", b"{}"), "duplicate member: a.JSON comes twice in s.tar"),
        (("a.png", b"mask"), "duplicate member: two images, a.jpg and a.png in s.tar"),
        (
            ("a.png", {"type": tarfile.LNKTYPE, "linkname": "b.jpg"}),
            "unusable member: a.png is a hard link to b.jpg in s.tar",
        ),
        (
            ("a.webp", {"type": tarfile.SYMTYPE, "linkname": "../b.jpg"}),
            "unusable member: a.webp is a link to ../b.jpg in s.tar",
        ),
        (
            ("a.png", {"type": tarfile.FIFOTYPE}),
            "unusable member: a.png is a file of tar type b'6' in s.tar",
        ),
    ],
)
def test_a_sample_with_two_or_unusable_members_is_refused_by_name(tmp_path, extra, expected):
    members = samples("abc")
    members.insert(2, extra)
    file = opened(tmp_path, packed(members))
    assert len(file) == 3
    assert reason(file, 0) == expected
    assert [file.read(row)["caption"] for row in (1, 2)] == ["b", "c"]


def test_a_sample_that_is_links_alone_keeps_its_row(tmp_path):
    members = [
        *samples("a"),
        ("b.jpg", {"type": tarfile.LNKTYPE, "linkname": "a.jpg"}),
        ("b.json", {"type": tarfile.LNKTYPE, "linkname": "a.json"}),
        *samples("c"),
    ]
    file = opened(tmp_path, packed(members))
    assert len(file) == 3
    assert "b.jpg is a hard link to a.jpg" in reason(file, 1)
    assert file.read(2)["caption"] == "c"


def test_names_with_a_dot_before_the_ending_are_said(tmp_path):
    members = [("3.5.jpg", b"p"), ("3.5.json", b'{"caption": "v"}'), *samples("a")]
    file = opened(tmp_path, packed(members))
    assert "3.5.jpg is no part of a sample, whose key ends at the first dot" in reason(file, 0)
    assert file.read(1)["caption"] == "a"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_odd_names(tmp_path, form):
    keys = ["d/" * 60 + "k" * 130, "Füße", "caf\udce9"]
    members = [pair for key in keys for pair in ((f"{key}.jpg", b"1"), (f"{key}.json", b"{}"))]
    file = opened(tmp_path, packed(members, form=form))
    assert [file.image(row).name for row in range(3)] == [
        f"s.tar/{keys[0]}",
        "s.tar/Füße",
        "s.tar/caf\\xe9",
    ]
    assert file.read(2)["key"] == "caf\\xe9"


def test_sparse_members_are_refused_and_what_follows_is_read(tmp_path):
    members = [("a.jpg", b"x" * 600), ("a.json", b"{}"), *samples("b")]
    info = tarfile.TarInfo("a.jpg")
    info.size, info.type = 600, tarfile.GNUTYPE_SPARSE
    old = bytearray(packed(members))
    old[:BLOCK] = info.tobuf(tarfile.GNU_FORMAT)
    file = opened(tmp_path, bytes(old))
    assert reason(file, 0) == "unusable member: a.jpg is a sparse file in s.tar"
    assert file.read(1)["caption"] == "b"


def test_joined_tars_are_read_to_their_end(tmp_path, caplog):
    first, second = packed(samples("ab")), packed(samples("bcd"))
    file = opened(tmp_path, first + second)
    assert captions(file) == ["a", "b", "b", "c", "d"]
    assert "several tar files joined; all of them are read" in caplog.text
    assert file.image(4).name == "s.tar/d"


def damaged():
    """Return name -> (a shard of five samples that is not whole, what is said of it)."""
    whole = packed(samples("abcde"))
    header = whole.index(b"c.jpg")
    body = header + BLOCK
    torn = bytearray(whole)
    torn[header + 10] = 255
    bad_size = bytearray(whole)
    bad_size[header + 124 : header + 136] = b"77777777777\0"
    found = {
        "zeroed header": whole[:header] + bytes(BLOCK) + whole[body:],
        "zeroed header and data": whole[:header] + bytes(1200) + whole[header + 1200 :],
        "damaged header": bytes(torn),
        "damaged size": bytes(bad_size),
        "cut in a header": whole[: header + 100],
        "cut in a member": whole[: body + 100],
        "cut after a header": whole[:body],
        "never fetched": whole[:header] + bytes(40960),
        "hole of zeros": whole[:header] + bytes(40960) + whole[header:],
        "lost block": whole[:body] + whole[body + BLOCK :],
        "misaligned joined": packed(samples("xy")) + b"\n" + whole,
    }
    return found


@pytest.mark.parametrize("kind", list(damaged()))
def test_a_shard_that_is_not_whole_is_an_error_that_names_it(tmp_path, kind):
    (tmp_path / "bad.tar").write_bytes(damaged()[kind])
    with pytest.raises(DataError, match=r"bad\.tar: not whole: .* at byte \d+ of \d+"):
        open_records([str(tmp_path / "bad.tar")])


def test_a_missing_end_mark_and_bytes_behind_it_are_said(tmp_path, caplog):
    whole = packed(samples("ab"))
    last = whole.index(b"b.json") + 2 * BLOCK
    assert captions(opened(tmp_path, whole[:last])) == ["a", "b"]
    assert "ends after b.json without a tar's end mark" in caplog.text
    assert captions(opened(tmp_path, whole[: last - 400])) == ["a", "b"]  # not filled up
    caplog.clear()
    assert captions(opened(tmp_path, whole[: last + BLOCK])) == ["a", "b"]
    assert captions(opened(tmp_path, whole)) == ["a", "b"]
    assert not caplog.records
    assert captions(opened(tmp_path, whole + b"signature" * 100)) == ["a", "b"]
    assert "900 bytes behind the end of the tar are passed over" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            gzip.compress(packed([]), mtime=0),
            r"s\.tar: compressed \(gzip\); .* to .tar first",
        ),
        (b"BZh91AY&SY", r"compressed \(bzip2\)"),
        (b"\x28\xb5\x2f\xfd\0\0", r"compressed \(zstandard\)"),
        (b"", r"s\.tar: empty, no tar file"),
        (b"<!doctype html>" * 99, "not a tar file, or cut short"),
    ],
)
def test_what_is_no_tar_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        opened(tmp_path, content)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_no_damage_loses_a_sample_without_a_word(tmp_path_factory, data):
    """Whatever happens to a shard's headers: all samples, or an error that names the shard."""
    whole = packed(samples([f"k{i}" for i in range(6)], data.draw(st.sampled_from([1, 512, 900]))))
    starts = [member.header for member in members_of(tmp_path_factory, whole)]
    at = data.draw(st.sampled_from(starts)) + data.draw(st.sampled_from([0, 50, 126, 156, 300]))
    change = data.draw(st.sampled_from(["cut", "zero", "flip"]))
    broken = bytearray(whole)
    if change == "cut":
        del broken[at:]
    elif change == "zero":
        count = data.draw(st.sampled_from([100, 512, 1024, 5000]))
        broken[at : at + count] = bytes(count)
    else:
        broken[at] ^= 0x55
    path = tmp_path_factory.mktemp("shards") / "s.tar"
    path.write_bytes(broken)
    try:
        file = TarFile(str(path))
    except DataError as error:
        assert "s.tar" in str(error)
        return
    if change == "cut" or bytes(broken).rstrip(b"\0") == whole[: len(broken)][:at].rstrip(b"\0"):
        assert len(file) >= sum(start < at for start in starts) / 2  # such an end is said
    else:
        assert len(file) == 6


def members_of(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("whole") / "s.tar"
    path.write_bytes(content)
    return list(tar_members(str(path)))
