"""Makes matrix products differ in the last bits by shape, as they do on other CPUs.

    pytest -p shape_noise tests/tasks

A test that demands equal bits of the same rows in other batches, other row lengths or on another
number of processes is green on one machine and red on the next; under this plugin it falls on any.
Equal shapes give equal bits, so that what is bit-equal by construction stays so.
"""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

_SIZE = 4e-7  # relative; a few times the spacing of float32
_PRODUCTS = {"addmm", "mm", "bmm", "baddbmm", "convolution"}


class ShapeNoise(TorchDispatchMode):
    """Scales each float32 product by a number that depends on the shapes of its operands."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _PRODUCTS and result.dtype == torch.float32:
            shapes = [tuple(value.shape) for value in args if isinstance(value, torch.Tensor)]
            place = zlib.crc32(repr(shapes).encode()) / 2**32  # the same in every process
            result.mul_(1 + _SIZE * (2 * place - 1))
        return result


@pytest.fixture(autouse=True)
def products_that_differ_by_shape():
    """Hold for the whole of a test, not while modules are imported."""
    with ShapeNoise():
        yield
