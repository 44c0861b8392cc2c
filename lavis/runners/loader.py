"""Batches on their way to the model: loaded ahead, moved to its device, and in what precision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lavis.common.config.run import RunConfig
from lavis.common.errors import ConfigError, DataError
from lavis.datasets.base import TrainingView
from lavis.datasets.rows import RejectedRow
from lavis.runners.sampler import BatchRequest

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
MOST_REJECTS = 1000  # so many unusable records one after another mean that the data set is broken


@dataclass
class TrainBatch:
    """Samples of one step, where they stand in the data, and the rows that could not be used."""

    samples: dict[str, Any]
    request: BatchRequest
    rejects: list[RejectedRow]

    def pin_memory(self) -> TrainBatch:
        """Pin the tensors, so that copies to the device need no waiting (DataLoader calls this)."""
        self.samples = {
            name: value.pin_memory() if isinstance(value, Tensor) else value
            for name, value in self.samples.items()
        }
        return self


class TrainBatches(Dataset[TrainBatch]):
    """Item `request` is the batch it asks for; runs in loader processes.

    A row that cannot be used is replaced by the next usable row of its data set, so that batches
    keep their size on every rank.

    Args:
        views: of the data sets.
        prepare: the task's `prepare_batch`.
    """

    def __init__(
        self,
        views: Sequence[TrainingView],
        prepare: Callable[[dict[str, Any], torch.Generator], dict[str, Any]] | None = None,
    ) -> None:
        self._views, self._prepare = list(views), prepare

    def __getitem__(self, request: BatchRequest) -> TrainBatch:
        view = self._views[request.dataset]
        view.set_epoch(request.epoch)
        rejects: list[RejectedRow] = []
        items = [self._usable(view, index, rejects) for index in request.indices]
        samples = view.collate(items)
        samples.pop("rejects", None)
        if self._prepare is not None:
            samples = self._prepare(samples, _own_stream(view.seed, request))
        return TrainBatch(samples, request, rejects)

    @staticmethod
    def _usable(view: TrainingView, index: int, rejects: list[RejectedRow]) -> Any:
        for offset in range(min(MOST_REJECTS, len(view))):
            item = view[(index + offset) % len(view)]
            if not isinstance(item, RejectedRow):
                return item
            rejects.append(item)
        raise DataError(
            f"datasets.{view.dataset.name}: row {index} and those after it cannot be used, "
            f"first because: {rejects[0].reason}"
        )


def make_loader(
    dataset: Dataset[Any], items: Iterable[Any], *, num_workers: int, device: torch.device
) -> DataLoader[Any]:
    """Return a loader of `dataset[item]` for each item, in order, without further batching."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=items,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),  # else it draws from the training's generator
        prefetch_factor=2 if num_workers else None,
    )


def to_device(samples: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return samples with tensors on the device, copied without waiting where they are pinned.

    `image_index` becomes a list of ints: models read it on the host.
    """
    moved = dict(samples)
    for name, value in samples.items():
        if name == "image_index" and isinstance(value, Tensor):
            moved[name] = value.tolist()
        elif isinstance(value, Tensor):
            moved[name] = value.to(device, non_blocking=True)
    return moved


def training_dtype(run: RunConfig, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of the training step; None for none.

    Raises:
        ConfigError: fp16 on a CPU, where gradients cannot be scaled.
    """
    if not run.amp:
        return None
    if run.amp_dtype == "fp16" and device.type == "cpu":
        raise ConfigError("run.amp_dtype: fp16 trains on CUDA only; use bf16, or run.amp=false")
    return DTYPES[run.amp_dtype]


def evaluation_dtype(run: RunConfig, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of evaluation: `run.amp_eval`, where null means on CUDA only."""
    wanted = device.type == "cuda" if run.amp_eval is None else run.amp_eval
    return DTYPES[run.amp_dtype] if wanted else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Return the context in which a model is called."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _own_stream(seed: int, request: BatchRequest) -> torch.Generator:
    """Return a batch's random numbers: not those of its loader process, nor of those before it."""
    text = json.dumps([seed, request.dataset, request.epoch, list(map(int, request.indices))])
    digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def _as_is(item: Any) -> Any:
    return item
