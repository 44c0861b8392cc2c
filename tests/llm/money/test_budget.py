"""Caps of an output folder over all its clients, starts and processes; and bills that surprise."""

import logging
import random
import threading
import time

import pytest
from accounts import BOUND, IMAGE, PRICES, account, spend

from lavis.common.errors import ConfigError, RunError
from lavis.llm.base import ChatRequest, image_part
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.money.billing import PromptBound
from lavis.llm.money.budget import Account, BudgetReached
from lavis.llm.money.ledger import Ledger, open_ledger, read_totals
from lavis.llm.money.ledger_file import KEPT


def ask(text, **more):
    return ChatRequest(key=text, messages=[{"role": "user", "content": text}], **more)


def image_ask(key):
    part = image_part(b"\x89PNG no image, so it counts as the flat estimate")
    words = {"type": "text", "text": f"what is {key}?"}
    return ChatRequest(key, [{"role": "user", "content": [part, words]}], max_tokens=20)


def any_bill(draw):
    return 0.3 * (40 / 0.3) ** draw.random()


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("requests", [3, 60])
def test_a_money_cap_is_passed_by_one_request_a_worker_at_most(tmp_path, workers, requests):
    for seed in range(6):
        cap = round(requests * any_bill(random.Random(seed)) * IMAGE / 1e6, 6)
        bills = spend(tmp_path / f"{seed}", cap, workers, any_bill, seed)
        assert sum(bills) - cap <= workers * max(bills)
        assert sum(bills) >= (0.6 * cap if requests > 9 else 0)


def test_the_same_over_a_server(serve, settings, tmp_path):
    """A first image that is billed 33 times the estimate, as between two models of a maker."""
    usage = (10 + 33 * IMAGE, 5)

    def dear(body, n):
        time.sleep(0.01)
        text = {"role": "assistant", "content": "a cat"}
        choice = {"index": 0, "finish_reason": "stop", "message": text}
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        return {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                "choices": [choice], "usage": counts}  # fmt: skip

    server = serve(dear)
    one = (usage[0] * 1.0 + usage[1] * 4.0) / 1e6
    more = {"caps": {"max_cost": 4 * one}, "prices": {"tiny": PRICES["m"]}, "concurrency": 8}
    with (
        pytest.raises(BudgetReached, match=r"max_cost .* is reached: 0\.\d+ spent, 0 reserved"),
        build_client(read_llm(settings(server, **more)), tmp_path) as client,
    ):
        list(client.complete(image_ask(f"q{i}") for i in range(40)))
    assert 3 <= server.asked.total() <= 4
    assert read_totals(tmp_path).cost <= 4 * one


def test_money_is_not_capped_where_a_price_is_not_known(tmp_path):
    with open_ledger(tmp_path) as ledger:
        account(ledger, "a", caps={"max_cost": 1.0})
        with pytest.raises(ConfigError, match="max_cost of the output folder needs the price of"):
            account(ledger, "b", prices=None)
        Account(ledger, read_llm({"backend": "scripted"}), scope="c")  # costs nothing


def test_a_batch_whose_images_cost_more_than_thought_keeps_the_cap(serve, settings, tmp_path):
    bill = {"prompt_tokens": 10 + 33 * IMAGE, "completion_tokens": 5}

    def dear(body, n):
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": "a cat"}}
        return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": bill}

    server, one = serve(dear), (bill["prompt_tokens"] + 5 * 4.0) / 2e6
    node = settings(server, mode="batch", batch={"poll_seconds": 0.02}, caps={"max_cost": 9 * one})
    node["prices"] = {"tiny": PRICES["m"]}
    with (
        pytest.raises(BudgetReached, match=r"max_cost .* is reached: 0\.\d+ spent, 0 reserved"),
        build_client(read_llm(node), tmp_path) as client,
    ):
        list(client.complete(image_ask(f"q{i}") for i in range(40)))
    assert 8 <= server.asked.total() <= 9 and read_totals(tmp_path).cost <= 9 * one


def test_odd_counts_never_lower_totals(tmp_path, caplog):
    with Ledger(tmp_path) as ledger:
        client = account(ledger)
        text = PromptBound(60, 15)
        for number, (counts, expected) in enumerate(
            [
                ((-5, 3), (15, 3)),
                ((0, 0), (15, 0)),
                ((7, -3), (7, 0)),
                ((10**30, 4), (60, 4)),
                ((9, 10**30), (9, 20)),
                ((2**31, 2**31), (60, 20)),
            ]
        ):
            before = ledger.state.total()
            client.reserve(f"{number}", text, 20)
            client.settle(f"{number}", *counts)
            after = ledger.state.total() - before
            assert (after.prompt_tokens, after.completion_tokens) == expected
            assert after.cost > 0 or expected == (0, 0)
        assert ledger.state.total().unknown == 3
        assert client.estimate(text) == 15 and client.estimate(BOUND) == 15 + IMAGE
    assert len([r for r in caplog.records if "which no model can" in r.getMessage()]) == 1


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (7, 1)),  # 9 bytes and 4 of the message; 'ok' is one token
        ({"prompt_tokens": -10, "completion_tokens": -5}, (7, 1)),
        ({"total_tokens": 50}, (49, 1)),
        ({"prompt_tokens": 30}, (30, 1)),
        ({"prompt_tokens": 1e30, "completion_tokens": 2}, (41, 2)),
        ({"prompt_tokens": {"a": 1}, "completion_tokens": "x"}, (7, 1)),
    ],
    ids=["missing", "negative", "total", "prompt only", "absurd", "odd"],
)
def test_a_reply_is_kept_whatever_its_usage(serve, settings, tmp_path, usage, tokens):
    def answer(body, n):
        message = {"role": "assistant", "content": "ok"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}

    with build_client(read_llm(settings(serve(answer))), tmp_path) as client:
        reply = next(iter(client.complete([ask("ninebytes")])))
    total = read_totals(tmp_path)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("ok", *tokens)
    assert (total.prompt_tokens, total.completion_tokens) == tokens


@pytest.mark.parametrize("status", [500, 502, 504, 520, 522, 524, 400, 401, 429, 503, 521])
def test_what_may_have_been_worked_on_counts_at_its_bound(serve, settings, tmp_path, status):
    server = serve(lambda body, n: (status, {"error": {"message": "no such luck"}}))
    node = settings(server, max_attempts=1)
    with build_client(read_llm(node), tmp_path) as client:
        try:
            list(client.complete([ask("q", max_tokens=30)]))
        except (ConfigError, RunError):
            assert status == 401
    total = read_totals(tmp_path)
    worked = status in (500, 502, 504, 520, 522, 524)
    sent = server.asked.total()
    assert total.requests == sent and total.unknown == worked * sent
    assert total.completion_tokens == worked * 30 * sent


def test_waiting_for_others_ends_when_the_run_stops(tmp_path):
    with Ledger(tmp_path) as ledger:
        client, stop = account(ledger, caps={"max_requests": 1}), threading.Event()
        client.reserve("a", BOUND, 20)
        assert client.reserve("b", BOUND, 20, wait=False) is False
        threading.Timer(0.1, stop.set).start()
        begun = time.monotonic()
        assert client.reserve("b", BOUND, 20, stop=stop) is False
        assert time.monotonic() - begun < 2
        client.cancel("a")  # never sent, so another may go
        assert client.reserve("b", BOUND, 20)


def test_a_batch_of_another_client_is_not_waited_for(tmp_path):
    with Ledger(tmp_path) as ledger:
        batches, client = account(ledger, "a", caps={"max_requests": 1}), account(ledger, "b")
        batches.reserve(f"{KEPT}job:key", BOUND, 20)
        stop = threading.Event()
        threading.Timer(5, stop.set).start()  # in place of waiting for ever
        with pytest.raises(BudgetReached, match="1 reserved for requests on their way"):
            client.reserve("b", BOUND, 20, stop=stop)
        assert batches.reserve("c", BOUND, 20, wait=False) is False  # its own may turn out cheaper


def test_a_run_without_a_word_of_money_says_nothing(caplog, tmp_path):
    with caplog.at_level(logging.WARNING), Ledger(tmp_path) as ledger:
        account(ledger).reserve("a", BOUND, 20)
    assert not caplog.records
