"""A file is known by its content: not by name, size or time, and read once where it is large."""

import hashlib
import os
import time

import pytest

from lavis.common.errors import DataError
from lavis.common.storage import content
from lavis.common.storage.content import content_digest

LARGE = 1 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def reads(monkeypatch):
    """Count how often a file is read."""
    counted = []
    read = content._read
    monkeypatch.setattr(content, "_read", lambda path: counted.append(path) or read(path))
    return counted


def age(monkeypatch, seconds=60):
    """Let what is written now count as written long ago."""
    now = time.time
    monkeypatch.setattr(content.time, "time", lambda: now() + seconds)


def test_the_digest_is_that_of_the_bytes_and_of_nothing_else(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(b"abc")
    assert content_digest(one) == hashlib.blake2b(b"abc", digest_size=16).hexdigest()
    os.utime(other, (0, 0))
    assert content_digest(other) == content_digest(one)


@pytest.mark.parametrize("size", [10, LARGE])
def test_an_edit_to_equal_size_and_time_is_another_content(tmp_path, monkeypatch, size):
    age(monkeypatch)
    path = tmp_path / "weights"
    path.write_bytes(b"a" * size)
    before = os.stat(path)
    first = content_digest(path)
    time.sleep(0.02)
    path.write_bytes(b"b" * size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == before.st_mtime_ns
    assert content_digest(path) != first


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    age(monkeypatch)
    counted = reads(monkeypatch)
    path = tmp_path / "weights"
    path.write_bytes(b"a" * LARGE)
    assert content_digest(path) == content_digest(path)
    assert len(counted) == 1


def test_what_changed_just_now_is_not_remembered(tmp_path, monkeypatch):
    counted = reads(monkeypatch)
    path = tmp_path / "weights"
    path.write_bytes(b"a" * LARGE)
    assert content_digest(path) == content_digest(path)
    assert len(counted) == 2


def test_without_a_cache_folder_it_is_read_each_time(tmp_path, monkeypatch, cache):
    age(monkeypatch)
    cache.write_text("a file where a folder should be")
    path = tmp_path / "weights"
    path.write_bytes(b"a" * LARGE)
    assert content_digest(path) == hashlib.blake2b(b"a" * LARGE, digest_size=16).hexdigest()


def test_a_file_that_is_not_there_or_never_still_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"missing: cannot be read: No such file"):
        content_digest(tmp_path / "missing")
    path = tmp_path / "growing"
    path.write_bytes(b"a")
    read = content._read

    def grow(path):
        found = read(path)
        with open(path, "ab") as file:
            file.write(b"a")
        return found

    monkeypatch.setattr(content, "_read", grow)
    with pytest.raises(DataError, match="growing: it changes while it is read"):
        content_digest(path)
