"""The runners' view of a task, a model and a unit; runners import none of them.

`lavis.tasks.base.BaseTask` and `lavis.models.base.BaseModel` say what each method does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lavis.common.config.run import RunConfig
from lavis.common.dist import World
from lavis.common.storage.plan import RowReader, UnitPlan
from lavis.datasets.base import RecordDataset
from lavis.datasets.rows import Row


class LoadedUnit(Protocol):
    """A unit, ready for the model."""

    unit: int
    rows: list[Row]
    samples: dict[str, Any]
    inputs: list[Any]
    again: bool


class RunnerTask(Protocol):
    """What one run computes."""

    def identity(self) -> dict[str, Any]: ...
    def prepare_images(self, dataset: RecordDataset, world: World) -> None: ...
    def prepare(self, model: Any, dataset: RecordDataset, world: World) -> None: ...
    def prepare_training(
        self,
        model: Any,
        datasets: Sequence[RecordDataset],
        *,
        epoch: int,
        run: RunConfig,
        world: World,
        folder: Path,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None: ...
    def prepare_batch(
        self, samples: dict[str, Any], generator: torch.Generator | None = None
    ) -> dict[str, Any]: ...
    def train_step(self, model: Any, samples: dict[str, Any]) -> dict[str, Tensor]: ...
    def finish_epoch(self, model: Any, *, epoch: int, world: World) -> None: ...
    def plan(
        self,
        dataset: RecordDataset,
        batch_size: int,
        path: Path | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> UnitPlan: ...
    def load_unit(self, dataset: RecordDataset, plan: UnitPlan, unit: int) -> LoadedUnit: ...
    def predict(self, model: Any, batch: Any) -> dict[str, Tensor]: ...
    def rows(self, batch: Any, outputs: dict[str, Tensor]) -> list[tuple[int, dict[str, Any]]]: ...
    def finish(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        report: bool = True,
        model: Any = None,
    ) -> dict[str, Any]: ...


class RunnerModel(nn.Module):
    """What a model has beyond `torch.nn.Module`; a type only, which no model derives from."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> object: ...
    @abstractmethod
    def full_state_dict(self) -> dict[str, Tensor]: ...
    @abstractmethod
    def trainable_state_dict(self) -> dict[str, Tensor]: ...
    @abstractmethod
    def get_optimizer_params(
        self, weight_decay: float, lr_layer_decay: float = 1.0
    ) -> list[dict[str, Any]]: ...
    @abstractmethod
    def layers_to_shard(self, device: torch.device) -> list[nn.Module]: ...
    @abstractmethod
    def scoring_identity(self) -> dict[str, Any] | None: ...
    @abstractmethod
    def scoring(self, folder: Path, world: World) -> AbstractContextManager[None]: ...
    @abstractmethod
    def frozen_fingerprint(self) -> str: ...
    @abstractmethod
    def encode_frozen(self, images: Tensor) -> Tensor:
        """Return a frozen tower's tokens `(N, T, D)` of images `(N, 3, S, S)`."""
