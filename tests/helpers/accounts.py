"""Accounts of clients in an output folder's ledger: for tests of money."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lavis.llm.config import read_llm
from lavis.llm.money.billing import PromptBound
from lavis.llm.money.budget import Account, BudgetReached
from lavis.llm.money.ledger import Ledger, read_totals

IMAGE = 1105  # tokens of an image by the flat estimate
BOUND = PromptBound(text=60, guess=15, images=IMAGE)
PRICES = {"m": {"input": 1.0, "output": 4.0}}


def config(**more):
    node = {"backend": "openai", "model": "m", "base_url": "http://h/v1", "prices": PRICES}
    return read_llm(node | more)


def account(ledger, scope="", **more):
    return Account(ledger, config(**more), scope=scope)


def spend(folder, cap, workers, bill, seed):
    """Send requests until the cap is reached; returns what was billed, request by request."""
    draw, lock, bills = random.Random(seed), threading.Lock(), []
    with Ledger(folder) as ledger:
        client, before = account(ledger, caps={"max_cost": cap}), ledger.spent().cost

        def work(number):
            for i in range(100_000):
                try:
                    client.reserve(f"{number}-{i}", BOUND, 20)
                except BudgetReached as reached:
                    return str(reached)
                with lock:
                    tokens = 15 + round(IMAGE * bill(draw))
                    bills.append((tokens * 1.0 + 10 * 4.0) / 1e6)
                    wait = draw.choice((0, 0, 0.0005))
                time.sleep(wait)
                client.settle(f"{number}-{i}", tokens, 10)

        with ThreadPoolExecutor(workers) as pool:
            reasons = list(pool.map(work, range(workers)))
        assert ledger.spent().cost - before == pytest.approx(sum(bills))
        assert all(reason.startswith(f"max_cost ({cap:g}) is reached: ") for reason in reasons)
    assert read_totals(folder).cost == pytest.approx(before + sum(bills))
    return bills
