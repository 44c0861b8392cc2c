"""Cache: what was put comes back, anything else is a miss, writers do not disturb each other."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lavis.common.storage.cache import Cache, make_key


def test_the_key_depends_on_every_part_and_not_on_their_order():
    key = make_key("features", 1, image="a.png", size=224)
    assert key == make_key("features", 1, size=224, image="a.png")
    others = [
        make_key("features", 2, image="a.png", size=224),
        make_key("features", 1, image="b.png", size=224),
        make_key("features", 1, image="a.png", size="224"),
        make_key("replies", 1, image="a.png", size=224),
    ]
    assert len({key, *others}) == 5
    with pytest.raises(ValueError, match="letters, digits"):
        make_key("../features", 1)


def test_bytes_and_arrays_come_back(tmp_path):
    cache = Cache(tmp_path)
    key = make_key("reply", 1, text="x")
    assert cache.get(key) is None and key not in cache
    cache.put(key, b"")
    assert cache.get(key) == b"" and key in cache
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    cache.put_array(key, array)
    back = cache.get_array(key)
    assert back is not None and back.dtype == np.float16
    np.testing.assert_array_equal(back, array)
    assert [p.name[0] for p in tmp_path.rglob("*") if p.is_file()] != ["."]


def test_every_cut_and_every_changed_byte_is_a_miss(tmp_path):
    cache = Cache(tmp_path)
    key = make_key("reply", 1)
    cache.put(key, b"content")
    data = cache.path(key).read_bytes()
    for end in range(len(data)):
        cache.path(key).write_bytes(data[:end])
        assert cache.get(key) is None
        cache.path(key).write_bytes(data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :])
        assert cache.get(key) is None
    cache.put(key, b"content")
    assert cache.get(key) == b"content"


WRITER = """
import sys
from lavis.common.storage.cache import Cache, make_key
cache = Cache(sys.argv[1])
for n in range(200):
    for key in range(3):
        key = make_key("reply", 1, key=key)
        cache.put(key, key.encode() * 2000)
        assert cache.get(key) == key.encode() * 2000, "a reader saw a part of an entry"
"""


def test_two_writing_processes_never_show_a_part_of_an_entry(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error.decode()
    assert sum(p.is_file() for p in tmp_path.rglob("*")) == 3
