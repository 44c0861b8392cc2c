"""Comparison of results that no machine gives to the last bit: other batches, other shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

TOLERANCE = 2e-5  # of log-probabilities and scores in float32


def assert_near(found: Any, expected: Any, *, atol: float = TOLERANCE, path: str = "") -> None:
    """Compare nested results: numbers within a tolerance, everything else by equality.

    Args:
        atol: also relative to the expected number.
        path: where in the results this is, for the message.
    """
    if isinstance(expected, Mapping):
        assert isinstance(found, Mapping) and list(found) == list(expected), path
        for key, value in expected.items():
            assert_near(found[key], value, atol=atol, path=f"{path}.{key}")
    elif isinstance(expected, Sequence) and not isinstance(expected, str | bytes):
        assert len(found) == len(expected), path
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_near(one, other, atol=atol, path=f"{path}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=atol, rel=atol, nan_ok=True), path
    else:
        assert found == expected, path
