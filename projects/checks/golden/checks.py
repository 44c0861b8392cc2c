"""One comparison, and how values, texts and ids are compared."""

from __future__ import annotations

import json
import lzma
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

STATES, CHANCES, EXACT = 1e-4, 1e-5, 0.0


@dataclass(frozen=True)
class Check:
    """One comparison: `difference` is the largest absolute one, or the count of unequal items."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is finite and within the tolerance."""
        return self.difference <= self.tolerance  # False for NaN


def compare(name: str, found: Tensor, expected: Tensor, tolerance: float) -> Check:
    """Compare two tensors; different shapes differ without bound."""
    found = torch.as_tensor(found).detach()
    if tuple(found.shape) != tuple(expected.shape):
        return Check(f"{name} {tuple(found.shape)} != {tuple(expected.shape)}", np.inf, tolerance)
    gap = (found.double() - expected.double()).abs().max().item() if found.numel() else 0.0
    return Check(name, gap, tolerance)


def contained(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """Pass comparisons on; an error becomes one that fails, and ends these comparisons only."""
    try:
        yield from checks
    except Exception as error:  # whatever a wrong set or a broken part raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        where = f"{Path(place.filename).name}:{place.lineno}"
        yield Check(f"{name}: {reason} ({where})", np.inf, EXACT)


def unequal(name: str, pairs: list[tuple[Any, Any]]) -> Check:
    """Count pairs that are not equal; no pair at all is a failure."""
    return Check(name, sum(a != b for a, b in pairs) if pairs else np.inf, EXACT)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors.xz` file."""
    with lzma.open(path) as file:
        return load(file.read())
