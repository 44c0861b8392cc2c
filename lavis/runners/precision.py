"""What training and evaluation compute in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from lavis.common.errors import ConfigError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def training_dtype(run: Any, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of the training step; None for none.

    Raises:
        ConfigError: fp16 on a CPU, where gradients cannot be scaled.
    """
    if not run.amp:
        return None
    if run.amp_dtype == "fp16" and device.type == "cpu":
        raise ConfigError("run.amp_dtype: fp16 trains on CUDA only; use bf16, or run.amp=false")
    return DTYPES[run.amp_dtype]


def evaluation_dtype(run: Any, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of evaluation: `run.amp_eval`, where null means on CUDA only."""
    wanted = device.type == "cuda" if run.amp_eval is None else run.amp_eval
    return DTYPES[run.amp_dtype] if wanted else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Return the context in which a model is called."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
