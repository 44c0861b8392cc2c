"""Members of a tar by their places, and every byte accounted for."""

import io
import tarfile

import pytest

from lavis.common.errors import DataError
from lavis.datasets.files.tar_members import member_at, tar_members


def packed(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return str(path)


def test_members_are_found_by_their_places(tmp_path):
    names = ["a.json", "x" * 150 + ".txt"]
    path = packed(tmp_path / "s.tar", names)
    members = list(tar_members(path))
    assert [member.name for member in members] == names
    content = (tmp_path / "s.tar").read_bytes()
    assert [content[m.offset : m.offset + m.size].decode() for m in members] == names
    assert member_at(path, members[1].header) == members[1]


def test_a_cut_tar_is_refused_and_joined_ones_are_read_as_one(tmp_path):
    first = packed(tmp_path / "s.tar", ["a.json", "b.json"])
    content = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[:1026])
    with pytest.raises(DataError, match="not whole: cut inside"):
        list(tar_members(str(tmp_path / "cut.tar")))
    (tmp_path / "two.tar").write_bytes(content + content)
    both = list(tar_members(str(tmp_path / "two.tar")))
    assert [(m.name, m.archive) for m in both] == [
        (m.name, archive) for archive in (0, 1) for m in tar_members(first)
    ]
