"""One process is a world of its own; two gloo processes meet, and a hung one is named."""

import logging
import os
import random
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
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
    with pytest.raises(ConfigError, match=r"^run\.device: 'cuda' found.*use auto or cpu$"):
        dist.pick_device("cuda")
    assert dist.pick_device("auto").type == "cpu"


def test_a_waiting_rank_says_for_whom(caplog, monkeypatch):
    store = dist.torch_dist.HashStore()
    monkeypatch.setattr(dist, "NOTE_SECONDS", 0.1)
    heartbeat = dist.Heartbeat(store, rank=0, size=2, limit=0.5)
    with caplog.at_level(logging.WARNING), pytest.raises(dist.HungRankError, match="not started"):
        heartbeat.meet(0, None, "the first meeting")
    assert "waiting at 'the first meeting' for 1 ranks: rank 1" in caplog.text
    heartbeat._stop.set()


def test_a_rank_that_has_ended_is_not_waited_for():
    store = dist.torch_dist.HashStore()
    store.set("left/1", b"1")
    heartbeat = dist.Heartbeat(store, rank=0, size=2, limit=1.0)
    with pytest.raises(dist.HungRankError, match="the plan: rank 1 has ended before; see its log"):
        heartbeat.meet(0, None, "the plan")
    heartbeat._stop.set()


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
import torch
count = torch.tensor([3, 1][world.rank])
print("SHARE", float(dist.share_of_mean(count)), count.item(), flush=True)
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
    # means over 3 and 1 items: (3/2 a + 1/2 b) / 2 is (3 a + b) / 4
    assert ["SHARE 1.5 3" in texts[0][0], "SHARE 0.5 1" in texts[1][0]] == [True, True]
    assert "STRAY rank 0 is at 'scores' while rank 1 at 'rejects'" in texts[0][0]
    assert "STRAY rank 1 is at 'rejects' while rank 0 at 'scores'" in texts[1][0]


@pytest.fixture
def ranks():
    """Two ranks as threads of this process, over one store; `run(work)` returns what each gives."""
    store = dist.torch_dist.HashStore()
    heartbeats = [dist.Heartbeat(store, rank=rank, size=2, limit=20.0) for rank in range(2)]
    cpu = dist.torch.device("cpu")
    worlds = [dist.World(rank, 2, cpu, "id", 20.0, heartbeats[rank]) for rank in range(2)]

    def run(work):
        with ThreadPoolExecutor(2) as pool:
            return [one.result(timeout=30) for one in [pool.submit(work, w) for w in worlds]]

    yield SimpleNamespace(store=store, heartbeats=heartbeats, worlds=worlds, run=run)
    for heartbeat in heartbeats:
        heartbeat._stop.set()
        heartbeat._thread.join()


def test_values_come_back_by_rank_at_every_meeting(ranks):
    def work(world):
        found = [world.gather((world.rank, step)) for step in range(3)]
        found.append(world.broadcast(f"of {world.rank}", "the plan"))
        found.append(world.heartbeat._where)
        world.barrier("the end")
        return found

    expected = [[(0, step), (1, step)] for step in range(3)] + ["of 0", "past 'the plan'"]
    assert ranks.run(work) == [expected, expected]
    left = {(n, r) for n in range(5) for r in range(2) if ranks.store.check([f"meet/{n}/{r}"])}
    assert left == {(4, 0), (4, 1)}  # what all have read is thrown away
    assert [world._meetings for world in ranks.worlds] == [5, 5]
    assert [heartbeat._where for heartbeat in ranks.heartbeats] == ["past 'the end'"] * 2


def test_only_rank_0_makes_and_all_hear_of_a_refusal(ranks):
    made = []

    def make():
        made.append(1)
        return {"left": [3]}

    assert ranks.run(lambda world: world.on_main(make, "the plan")) == [{"left": [3]}] * 2
    assert len(made) == 1

    def refuse():
        raise ConfigError("run.seed: no")

    def work(world):
        try:
            return world.on_main(refuse, "the plan")
        except ConfigError as error:
            return str(error)

    assert ranks.run(work) == ["run.seed: no"] * 2


def test_strays_name_each_other(ranks):
    def work(world):
        try:
            return world.gather(1, f"part {world.rank}")
        except dist.StrayRankError as error:
            return str(error)

    first, second = ranks.run(work)
    assert first == (
        "rank 0 is at 'part 0' while rank 1 at 'part 1': the processes do not do the same work; "
        "they must start the same command on the same files"
    )
    assert second.startswith("rank 1 is at 'part 1' while rank 0 at 'part 0': ")


def test_who_leaves_first_is_waited_for_by_rank_0_alone(ranks):
    first, second = ranks.worlds
    start = time.monotonic()
    second.leave()
    second.leave()  # has nothing left to say
    assert time.monotonic() - start < 8 and second.heartbeat is None
    assert ranks.store.get("left/1") == b"1" and not ranks.store.check(["left/0"])
    first.leave()
    assert ranks.store.get("left/0") == b"1"
    assert not any(heartbeat._thread.is_alive() for heartbeat in ranks.heartbeats)


def test_rank_0_keeps_the_store_until_the_others_have_left(ranks):
    first, second = ranks.worlds
    left = []
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(lambda: (first.leave(), left.append(0)))
        time.sleep(0.3)
        assert not left  # waits for rank 1
        second.leave()
        leaving.result(timeout=30)


@pytest.fixture
def quick():
    """Make a heartbeat that looks and publishes every 50 ms."""
    store, made = dist.torch_dist.HashStore(), []

    def make(rank, **options):
        made.append(dist.Heartbeat(store, rank=rank, **{"size": 2, "limit": 0.5, **options}))
        return made[-1]

    make.store = store
    yield make
    for heartbeat in made:
        heartbeat._stop.set()


def test_a_failed_collective_names_the_ranks_that_are_behind(quick):
    ahead, behind = quick(0, size=3), quick(1, size=3)
    world = dist.World(0, 3, dist.torch.device("cpu"), "id", 0.5, ahead)
    error = RuntimeError("timed out")
    assert ahead.behind() == ""  # all have noted nothing
    behind.beat("unit 6")
    behind._publish()  # the thread would, in time
    for step in range(3):
        ahead.beat(f"unit {step}")
    told = world.explain(error, "iteration 7")
    assert isinstance(told, dist.HungRankError)
    assert str(told) == (
        "iteration 7: no answer from rank 1 (last heard at: unit 6), rank 2 (last heard at: not "
        "started); the collective reported: timed out"
    )
    quick.store.set("heartbeat/2", "3|unit 2")
    behind.beat("unit 7")
    behind.beat("unit 8")
    behind._publish()
    assert world.explain(error, "iteration 8") is error  # as far as this one: not their fault


def test_a_note_that_changes_is_a_sign_of_life(quick):
    heartbeat = quick(0, limit=2.0)
    quick.store.set("heartbeat/1", "1|unit 1")
    start = time.monotonic() - 100
    assert heartbeat._silence(1, start) == pytest.approx(100, abs=1)  # since it began to look
    quick.store.set("heartbeat/1", "2|unit 2")
    assert heartbeat._silence(1, start) == pytest.approx(0, abs=1)
    heartbeat._seen[1] = (heartbeat._seen[1][0], time.monotonic() - 7)
    assert heartbeat._silence(1, start) == pytest.approx(7, abs=1)  # the same note since then
    told = heartbeat._tell(1, 7.4)
    assert told == "rank 1 has made no progress for 7 s, last at: unit 2"


def test_a_silent_rank_ends_the_wait_and_a_slow_one_does_not(quick):
    heartbeat, other = quick(0, limit=2.0), quick(1, limit=2.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(heartbeat.meet, 0, "a", "scores")
        for step in range(12):  # 3 s in all, never silent for the limit
            other.beat(f"unit {step}")
            time.sleep(0.25)
        assert not waiting.done()
        assert other.meet(0, "b", "scores") == ["a", "b"]
        assert waiting.result(timeout=30) == ["a", "b"]
    start = time.monotonic()
    pattern = r"^rejects: rank 1 has made no progress for \d+ s, last at: unit 11$"
    with pytest.raises(dist.HungRankError, match=pattern):
        heartbeat.meet(1, "a", "rejects")
    assert 2.0 <= time.monotonic() - start < 20


class LostStore:
    """A store whose process has ended, once `lost` is set."""

    def __init__(self):
        self.store, self.lost = dist.torch_dist.HashStore(), False

    def __getattr__(self, name):
        if self.lost:
            raise dist.torch_dist.DistError("connection reset")
        return getattr(self.store, name)


def test_a_lost_store_is_said_at_the_meeting_and_passed_over_at_the_end():
    store = LostStore()
    heartbeat = dist.Heartbeat(store, rank=1, size=2, limit=0.5)
    store.lost = True
    expected = (
        r"^the plan: rank 1 lost the store that rank 0 or the launcher keeps, so that process has "
        r"ended; see its log \(connection reset\)$"
    )
    with pytest.raises(dist.HungRankError, match=expected):
        heartbeat.meet(0, None, "the plan")
    heartbeat.beat("more")
    heartbeat._thread.join(timeout=10)
    assert not heartbeat._thread.is_alive()  # nothing to publish to
    heartbeat.leave()


def test_the_launcher_says_who_this_process_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (dist.rank(), dist.world_size(), dist.is_main()) == (0, 1, True)
    monkeypatch.setenv("RANK", "3")
    assert dist.start("cpu", timeout_minutes=2).limit == 120  # no WORLD_SIZE: no launcher
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert (dist.rank(), dist.world_size(), dist.is_main()) == (3, 5, False)
    monkeypatch.setenv("RANK", "0")
    assert dist.is_main()
    assert dist.share_of_mean(dist.torch.tensor(7)) == 1.0  # no process group: nothing to share


def test_each_process_of_a_host_has_its_gpu(monkeypatch):
    monkeypatch.setattr(dist.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dist.torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert str(dist.pick_device("auto")) == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert str(dist.pick_device("cuda")) == "cuda:2"
    assert str(dist.pick_device("cpu")) == "cpu"


def test_one_seed_for_every_generator():
    def draw(seed):
        dist.seed_everything(seed)
        return random.random(), np.random.random(), dist.torch.rand(1).item()

    first = draw(5)
    assert draw(5) == first
    assert all(a != b for a, b in zip(first, draw(6), strict=True))
    random.seed(5)
    np.random.seed(5)
    dist.torch.manual_seed(5)
    assert first == (random.random(), np.random.random(), dist.torch.rand(1).item())
    assert draw(2**32 + 5)[1] == first[1]  # numpy's seeds have 32 bits


def test_a_note_may_hold_the_sign_that_ends_the_count(quick):
    quick.store.set("heartbeat/1", "3|a|b.jpg")
    assert quick(0)._tell(1, 1).endswith("last at: a|b.jpg")


def test_the_reason_of_rank_0_is_that_of_the_others(monkeypatch):
    store = dist.torch_dist.HashStore()
    where = dist.torch_dist.distributed_c10d
    monkeypatch.setattr(where, "_get_default_store", lambda: store)
    start = time.monotonic()
    assert not dist.failed_alike(1, "no such file", 0.1)  # rank 0 has noted nothing
    assert 0.1 <= time.monotonic() - start < 5
    assert not dist.failed_alike(0, "no such file", 5.0)  # rank 0 itself says it
    assert dist.failed_alike(1, "no such file", 5.0)
    assert not dist.failed_alike(1, "disk full", 5.0)
    assert dist.failed_alike(1, "disk full", 5.0, any_reason=True)

    def gone():
        raise ValueError("no process group")

    monkeypatch.setattr(where, "_get_default_store", gone)
    assert not dist.failed_alike(1, "no such file", 5.0, any_reason=True)


def test_a_process_joins_those_of_its_launcher(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    world = dist.start("cpu", timeout_minutes=0.5)
    try:
        assert dist.has_joined() and os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
        assert (world.rank, world.size, world.limit, world.device.type) == (0, 1, 30.0, "cpu")
        assert (dist.rank(), dist.world_size(), dist.is_main()) == (0, 1, True)
        assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{4}", world.run_id)
        heartbeat = world.heartbeat
        assert heartbeat._where == f"joined on {socket.gethostname()}"
        assert (heartbeat._rank, heartbeat._size, heartbeat._limit) == (0, 1, 30.0)
        store = dist.torch_dist.distributed_c10d._get_default_store()
        assert store.get("lavis/run_id").decode() == world.run_id
        assert store.check([f"lavis/{world.run_id}/heartbeat/0"])  # a run's own keys
        assert world.gather("x", "what") == ["x"] and heartbeat._where == "past 'what'"
        assert dist.share_of_mean(dist.torch.tensor(3)) == 1.0
        assert dist.share_of_mean(dist.torch.tensor(0)) == 0.0  # nobody has any
        monkeypatch.setattr(dist.torch_dist, "get_rank", lambda: 1)
        monkeypatch.setattr(dist.torch_dist, "get_world_size", lambda: 2)
        second = dist.start("cpu", timeout_minutes=0.5)
        assert (second.rank, second.size, second.run_id) == (1, 2, world.run_id)
        second.heartbeat.leave()
        monkeypatch.undo()
    finally:
        world.close()
    assert world.heartbeat is None and not dist.has_joined()
