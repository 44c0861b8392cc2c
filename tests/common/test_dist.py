"""One process is a world of its own; two gloo processes meet, and a hung one is named."""

import logging
import os
import re
import subprocess
import sys

import pytest

from launching import launcher_environments
from lavis.common import dist
from lavis.common.errors import ConfigError

MEET = """
import logging, sys, time
from lavis.common import dist
logging.basicConfig(level=logging.WARNING)
world = dist.start("cpu", timeout_minutes=2.0 / 60)
assert world.size == 2
print("RUN", world.run_id, flush=True)
print("GATHER", world.gather({"rank": world.rank}), flush=True)
print("BROADCAST", world.broadcast(f"from {world.rank}"), flush=True)
for step in range(6):  # slower than the limit in all, but never silent for so long
    world.beat(f"unit {step}")
    time.sleep(0.6 * world.rank)
world.barrier("scores")
world.beat("iteration 7")
if world.rank == 1:
    time.sleep(60)
try:
    world.barrier("the end of epoch 0")
except dist.HungRankError as error:
    print("HUNG", error, flush=True)
    import os
    os._exit(3)
"""


def launch(code, size):
    """Start `size` python processes as torchrun would."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": "1", **place},
            **pipes,
        )
        for place in launcher_environments(size)
    ]


def test_two_processes_meet_and_the_one_that_hangs_is_named():
    first, second = launch(MEET, 2)
    try:
        out, err = first.communicate(timeout=60)
    finally:
        second.kill()
    other = second.communicate()[0]
    assert first.returncode == 3, err
    run_ids = {re.search(r"RUN (\S+)", text).group(1) for text in (out, other)}
    assert len(run_ids) == 1
    for text in (out, other):
        assert "GATHER [{'rank': 0}, {'rank': 1}]" in text
        assert "BROADCAST from 0" in text
    hung = re.search(r"HUNG (.*)", out).group(1)
    assert re.match(
        r"the end of epoch 0: rank 1 has made no progress for \d+ s, last at: iteration 7", hung
    )


def test_one_process_needs_nobody(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    world = dist.start("cpu")
    assert (world.rank, world.size, world.is_main, world.device.type) == (0, 1, True, "cpu")
    assert world.gather(3) == [3] and world.broadcast("x") == "x"
    world.barrier("nothing")
    world.beat("anything")
    error = RuntimeError("as it was")
    assert world.explain(error, "step") is error
    world.close()


def test_run_ids_tell_time_and_differ():
    first = dist.make_run_id()
    assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{4}", first)
    assert len({dist.make_run_id() for _ in range(50)}) > 40


def test_asking_for_a_missing_gpu_says_what_to_use(monkeypatch):
    monkeypatch.setattr(dist.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"run\.device: 'cuda' found.*use auto or cpu"):
        dist.pick_device("cuda")
    assert dist.pick_device("auto").type == "cpu"


def test_a_waiting_rank_says_for_whom(caplog, monkeypatch):
    store = dist.torch_dist.HashStore()
    monkeypatch.setattr(dist, "NOTE_SECONDS", 0.1)
    pulse = dist.Pulse(store, rank=0, size=2, limit=0.5)
    with caplog.at_level(logging.WARNING), pytest.raises(dist.HungRankError, match="not started"):
        pulse.meet(0, None, "the first meeting")
    assert "waiting at 'the first meeting' for 1 ranks: rank 1" in caplog.text
    pulse._stop.set()


def test_a_rank_that_has_ended_is_not_waited_for():
    store = dist.torch_dist.HashStore()
    store.set("left/1", b"1")
    pulse = dist.Pulse(store, rank=0, size=2, limit=1.0)
    with pytest.raises(dist.HungRankError, match="the plan: rank 1 has ended before; see its log"):
        pulse.meet(0, None, "the plan")
    pulse._stop.set()


STRAY = """
from lavis.common import dist
from lavis.common.errors import DataError
world = dist.start("cpu", timeout_minutes=0.5)
print("MAIN", world.on_main(lambda: f"made by {world.rank}", "what is left"), flush=True)
def refuse():
    raise DataError("no such file: a.jsonl")
try:
    world.on_main(refuse, "what is left")
except DataError as error:
    print("REFUSED", error, flush=True)
try:
    if world.is_main:
        world.gather([0.5], "scores")
    else:
        world.gather(["missing image"], "rejects")
except dist.StrayRankError as error:
    print("STRAY", error, flush=True)
world.leave()
"""


def test_ranks_that_meet_for_different_things_are_told_so_and_exchange_nothing():
    first, second = launch(STRAY, 2)
    texts = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], texts
    for out, _ in texts:
        assert "MAIN made by 0" in out
        assert "REFUSED no such file: a.jsonl" in out  # on both: neither waits for the other
    assert "STRAY rank 0 is at 'scores' while rank 1 at 'rejects'" in texts[0][0]
    assert "STRAY rank 1 is at 'rejects' while rank 0 at 'scores'" in texts[1][0]
