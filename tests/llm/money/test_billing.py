"""Bounds on what a request costs follow the bills of its server."""

import json

import pytest
from accounts import BOUND, IMAGE, spend

from lavis.llm.money.billing import FACTOR_OF_FLAT, FACTOR_OF_RULE, Bills, PromptBound


@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize("factor", [0.3, 1.0, 7.0, 40.0])
def test_a_server_with_a_factor_of_its_own_is_learnt_and_the_money_is_used(
    tmp_path, workers, factor
):
    one = (15 + IMAGE * factor + 40) / 1e6
    cap = round(60.5 * one, 6)
    bills = spend(tmp_path, cap, workers, lambda draw: factor, 0)
    assert 0.9 * cap <= sum(bills) <= cap + 1e-9
    # the next start knows the bills: nothing is tried anew
    for _ in range(2):
        assert spend(tmp_path, cap, workers, lambda draw: factor, 1) == []
    more = spend(tmp_path, round(2 * cap, 6), workers, lambda draw: factor, 1)
    assert 1.85 * cap <= sum(bills) + sum(more) <= 2 * cap + 1e-9


def test_bounds_follow_the_bills():
    bills, rule = Bills(), PromptBound(60, 15, IMAGE, documented=True)
    assert bills.most(BOUND, 20) == (60 + FACTOR_OF_FLAT * IMAGE, 20)
    assert bills.most(rule, 20) == (60 + FACTOR_OF_RULE * IMAGE, 20)
    assert bills.likely(BOUND, 20) == (60 + IMAGE, 20)
    for _ in range(40):
        bills.add(BOUND, 20, (15 + 2 * IMAGE, 10))
    assert bills.most(BOUND, 20) == (2823, 20)  # 60 + 2.5 * 1105
    assert bills.estimate(BOUND) == 15 + 2 * IMAGE
    text = PromptBound(100, 25)
    assert bills.most(text, 20) == (100, 20)
    bills.add(text, 20, (300, 50))  # a hidden prompt, and thoughts over max_tokens
    assert bills.most(text, 20) == (375, 63)
    again = Bills.from_json(json.loads(json.dumps(bills.to_json())))
    assert again == bills
