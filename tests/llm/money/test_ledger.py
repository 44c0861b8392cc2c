"""The ledger of an output folder: clients, ranks, earlier versions, kills and full disks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from accounts import IMAGE, account

from lavis.common.errors import ConfigError
from lavis.llm.money.billing import FACTOR_OF_FLAT, PromptBound
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger import Ledger, folder_totals, open_ledger

ROOT = Path(__file__).resolve().parents[3]


def test_clients_of_a_folder_share_totals_each_with_its_own_price(tmp_path):
    with open_ledger(tmp_path) as ledger:
        dear = account(ledger, "a", prices={"m": {"input": 10.0, "output": 0.0}})
        half = account(ledger, "b", mode="batch")
        for client in (dear, half):
            assert client.reserve("same name", PromptBound(100, 100), 0)
        assert dear.pending() == half.pending() == ["same name"]
        dear.settle("same name", 100, 0)
        half.settle("same name", 100, 0)
        assert ledger.state.total().cost == pytest.approx(1000e-6 + 50e-6)
        assert dear.ledger is half.ledger and ledger.state.total().requests == 2
    assert folder_totals(tmp_path).requests == 2


def test_the_strictest_cap_of_all_clients_holds_for_all(tmp_path):
    with open_ledger(tmp_path) as ledger:
        free = account(ledger, "a")
        for i in range(4):
            free.reserve(f"{i}", PromptBound(1, 1), 1)
            free.settle(f"{i}", 1, 1)
        account(ledger, "b", caps={"max_requests": 5, "max_tokens": 1000})
        account(ledger, "c", caps={"max_requests": 9})
        free.reserve("4", PromptBound(1, 1), 1)
        free.settle("4", 1, 1)
        with pytest.raises(BudgetReached, match=r"max_requests \(5\) is reached: 5 spent"):
            free.reserve("5", PromptBound(1, 1), 1)


def test_ledgers_of_an_earlier_version_and_of_other_ranks_count(tmp_path):
    old = tmp_path / "clients/captions/rank0-0/ledger.jsonl"
    old.parent.mkdir(parents=True)
    totals = {"requests": 4, "prompt_tokens": 40, "completion_tokens": 8, "cost": 0.5, "unknown": 0}
    one = {**totals, "requests": 1}
    lines = [
        {"close": "", "totals": totals},
        {"reserve": "lost", "totals": one},
        {"reserve": "batch:job:key", "totals": one},
    ]
    old.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with open_ledger(tmp_path, rank=1) as other:
        account(other, "x").reserve("r", PromptBound(7, 7), 3)
        account(other, "x").settle("r", 7, 3)
        with open_ledger(tmp_path) as ledger, pytest.raises(ConfigError, match="another process"):
            account(ledger, "y", caps={"max_requests": 9})
    for _ in range(2):  # counted once, at every start
        with open_ledger(tmp_path) as ledger:
            assert ledger.state.total().requests == 4 + 2 + 1
            assert ledger.state.total().prompt_tokens == 40 + 80 + 7
            batch = account(ledger, "../clients/captions/rank0-0")
            assert batch.pending() == ["batch:job:key"]  # goes on where its client is
    assert not list((tmp_path / "llm").glob("ledger-rank*.jsonl"))
    assert folder_totals(tmp_path).requests == 7


def test_a_killed_process_leaves_its_reservations_counted_in_full(tmp_path):
    code = """
import os, signal, sys
sys.path.insert(0, "tests/helpers")
from pathlib import Path
from accounts import BOUND, account
from lavis.llm.money.ledger import Ledger
client = account(Ledger(Path(sys.argv[1])))
for name in "abc":
    client.reserve(name, BOUND, 20)
client.settle("a", 15 + 1105, 20)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=60)
    with Ledger(tmp_path) as ledger:
        total = ledger.state.total()
        assert (total.requests, total.unknown) == (3, 2)
        assert total.prompt_tokens == 1120 + 2 * (60 + FACTOR_OF_FLAT * IMAGE)
        assert ledger.reserved().requests == 0
