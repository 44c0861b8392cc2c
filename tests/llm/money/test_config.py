"""Caps, prices and sizes that are refused."""

import pytest
from accounts import PRICES, config

from lavis.common.errors import ConfigError


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"caps": {"max_cost": float("nan")}}, "max_cost: nan found, expected a finite number"),
        ({"caps": {"max_cost": float("inf")}}, "max_cost: inf found, expected a finite number"),
        ({"caps": {"max_tokens": -1}}, "max_tokens: -1 found, expected greater than or equal to 0"),
        ({"prices": {"m": {"input": float("nan"), "output": 1}}}, "input: nan found"),
        (
            {"prices": {"m": {"input": -1, "output": 1}}},
            "input: -1.* found, expected greater",
        ),
        ({"prices": {"M": PRICES["m"]}, "caps": {"max_cost": 1}}, "needs the price of 'm'"),
        ({"image_tokens": -5}, "image_tokens: -5 found, expected greater"),
        ({"batch": {"price_factor": -0.5}}, "price_factor: -0.5 found, expected greater"),
    ],
)
def test_numbers_that_would_switch_a_cap_off_are_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        config(**more)
