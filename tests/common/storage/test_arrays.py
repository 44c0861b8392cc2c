"""Shards: whole arrays only, whatever was killed where; many processes; no object an array."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from lavis.common.errors import ConfigError
from lavis.common.storage import arrays as shards
from lavis.common.storage.arrays import ArrayShards, array_key

WIDTH = 3


def open_shards(folder, **options) -> ArrayShards:
    given = {"width": WIDTH, "dtype": np.float32, "fingerprint": {"llm": "a"}, **options}
    return ArrayShards(folder, **given)


def key(number: int) -> bytes:
    return array_key(str(number).encode())


def array(number: int) -> np.ndarray:
    rows = number % 4 + 1
    return np.arange(rows * WIDTH, dtype=np.float32).reshape(rows, WIDTH) + 100 * number


def assert_whole(found: ArrayShards, numbers) -> None:
    for number in numbers:
        np.testing.assert_array_equal(found.get(key(number)), array(number))


def test_what_was_put_is_read_back_here_and_by_a_later_start(tmp_path):
    first = open_shards(tmp_path / "new")
    assert len(first) == 0 and not (tmp_path / "new").exists()
    first.put((key(n), array(n)) for n in range(5))
    assert first.get(key(0)) is None  # not before it has looked
    first.refresh()
    assert_whole(first, range(5))
    first.put([(key(5), array(5))])
    first.refresh()
    first.close()
    for found in (first, open_shards(tmp_path / "new"), pickle.loads(pickle.dumps(first))):
        assert len(found) == 6 and found.get(key(6)) is None
        assert_whole(found, range(6))
        assert found.has([key(9), key(3), key(0)]).tolist() == [False, True, True]
    with pytest.raises(ValueError, match="read-only"):
        found.get(key(0))[:] = 0


def test_an_array_put_twice_counts_once(tmp_path):
    for _ in range(2):
        one = open_shards(tmp_path)
        one.put([(key(1), array(1)), (key(2), array(2))])
        one.put([(key(1), array(1))])
        one.close()
    found = open_shards(tmp_path)
    assert len(found) == 2
    assert_whole(found, [1, 2])


@pytest.mark.parametrize("suffix", [".rows", ".index"])
def test_files_cut_at_every_byte_yield_whole_arrays_only(tmp_path, suffix, caplog):
    one = open_shards(tmp_path)
    for number in range(3):
        one.put([(key(number), array(number))])
    one.close()
    (path,) = tmp_path.glob(f"*{suffix}")
    data = path.read_bytes()
    counts = []
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        found = open_shards(tmp_path)
        counts.append(len(found))
        assert_whole(found, range(len(found)))
    assert counts == sorted(counts) and (counts[0], counts[-1]) == (0, 3)


def test_after_a_power_cut_damaged_rows_do_not_count(tmp_path, caplog):
    """Without the mark that `close` leaves, rows are compared with their checksums."""
    one = open_shards(tmp_path)
    one.put((key(n), array(n)) for n in range(3))
    (path,) = tmp_path.glob("*.rows")
    data = bytearray(path.read_bytes())
    data[array(0).nbytes] ^= 1  # the first byte of array 1
    path.write_bytes(data)
    found = open_shards(tmp_path)
    assert found.has([key(0), key(1), key(2)]).tolist() == [True, False, True]
    assert "passed over 1 damaged" in caplog.text


def test_a_writer_killed_in_the_middle_loses_what_was_not_put(tmp_path):
    code = (
        "import numpy as np, sys\n"
        "from lavis.common.storage.arrays import ArrayShards, array_key\n"
        "one = ArrayShards(sys.argv[1], width=3, dtype=np.float32, fingerprint={'llm': 'a'})\n"
        "for n in range(10**9):\n"
        "    rows = n % 4 + 1\n"
        "    a = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + 100 * n\n"
        "    one.put([(array_key(str(n).encode()), a)])\n"
        "    if n == 20: print('ready', flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    found = open_shards(tmp_path)
    count = len(found)
    assert count > 20
    assert_whole(found, range(count))
    found.put([(key(count), array(count))])  # a later start goes on
    found.refresh()
    assert_whole(found, range(count + 1))
    assert len(list(tmp_path.glob("*.index"))) == 2


def _write(folder, numbers) -> None:
    one = open_shards(folder)
    for number in numbers:
        one.put([(key(number), array(number))])
    one.close()


def test_two_writers_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    shares = (range(0, 60), range(40, 100))
    writers = [context.Process(target=_write, args=(tmp_path, share)) for share in shares]
    reader = open_shards(tmp_path)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        reader.refresh()
        there = [n for n in range(100) if reader.has([key(n)])[0]]
        assert_whole(reader, there)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    reader.refresh()
    assert len(reader) == 100
    assert_whole(reader, range(100))


def test_keys_that_share_a_half_are_told_apart(tmp_path):
    keys = [b"A" * 8 + bytes([n]) * 8 for n in (5, 1, 3)] + [b"B" * 8 + b"\1" * 8]
    one = open_shards(tmp_path)
    one.put((k, array(n)) for n, k in enumerate(keys))
    one.refresh()
    for number, k in enumerate(keys):
        np.testing.assert_array_equal(one.get(k), array(number))
    others = [b"A" * 8 + b"\2" * 8, b"A" * 8 + b"\7" * 8, b"B" * 8 + b"\5" * 8, b"C" * 16]
    assert not one.has(others).any()


def test_a_million_arrays_take_no_python_object_each(tmp_path):
    """The index of a million arrays, written as `put` would, costs some tens of megabytes."""
    count = 1_000_000
    one = open_shards(tmp_path)
    one.put([(key(0), array(0))])
    one.close()
    (path,) = tmp_path.glob("*.index")
    rng = np.random.default_rng(0)
    records = np.zeros(count, dtype=shards.RECORD)
    halves = np.stack([rng.integers(0, 2**63, count), np.arange(count)], axis=1)
    records["key"] = halves.view("S16")[:, 0]
    records["first"], records["rows"] = np.arange(count), 1
    records["rows"][-1], records["first"][-1] = 0, count  # all of it is on the disk
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n" + records.tobytes())
    rows = path.with_suffix(".rows")
    with open(rows, "wb") as file:
        file.truncate(count * WIDTH * 4)
    tracemalloc.start()
    start = time.process_time()
    found = open_shards(tmp_path)
    seconds = time.process_time() - start
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == count - 1
    assert kept < 40e6 and peak < 250e6 and seconds < 10
    wanted = [halves[n].tobytes() for n in range(0, 999, 7)]
    assert found.has(wanted).all()
    assert found.get(wanted[-1]).shape == (1, WIDTH)


def test_arrays_of_another_origin_are_refused(tmp_path):
    one = open_shards(tmp_path)
    one.put([(key(0), array(0))])
    one.close()
    for other in ({"width": 4}, {"dtype": np.float16}, {"fingerprint": {"llm": "b"}}):
        with pytest.raises(ConfigError, match="holds arrays of another origin"):
            open_shards(tmp_path, **other)


def test_an_error_while_writing_begins_another_segment(tmp_path):
    one = open_shards(tmp_path)

    def arrays():
        yield key(0), array(0)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        one.put(arrays())
    one.put([(key(1), array(1))])
    one.refresh()
    assert_whole(one, [1])
    assert len(list(tmp_path.glob("*.rows"))) == 2
