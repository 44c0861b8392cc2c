"""Checkpoint folders: written whole or not at all, with everything a killed run needs to resume.

checkpoint_last/  model.safetensors  training_state.pt  trainer_state.json
checkpoint_best/  model.safetensors  trainer_state.json
"""

from __future__ import annotations

import json
import logging
import pickle
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis.common.checkpoint import read_state_dict, save_safetensors, save_torch
from lavis.common.config.difference import difference
from lavis.common.errors import ConfigError, DataError
from lavis.common.logger import Totals
from lavis.common.storage.atomic import AtomicFolder, recover_folder, write_text
from lavis.runners.sampler import Cursor

logger = logging.getLogger(__name__)

FORMAT = 1
MODEL, TENSORS, STATE = "model.safetensors", "training_state.pt", "trainer_state.json"


@dataclass
class TrainerState:
    """Where a training stands; JSON-able but for the cursor.

    Attributes:
        epoch: (inner) epochs that are complete.
        step: batches done in the current one.
        iteration: batches done in all.
        updates: optimizer steps done in all.
        cursor: position in the training data.
        validated: epochs whose validation is complete.
        best: metric and epoch of the best checkpoint.
        totals: sums of the current epoch's losses.
        world_size: processes of the run that wrote it.
    """

    cursor: Cursor
    epoch: int = 0
    step: int = 0
    iteration: int = 0
    updates: int = 0
    validated: int = 0
    best: dict[str, Any] | None = None
    totals: Totals = field(default_factory=dict)
    world_size: int = 1

    def to_json(self, **more: Any) -> str:
        """Return the state as JSON text, with more entries."""
        return json.dumps({"format": FORMAT, **asdict(self), **more}, indent=1) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainerState:
        """Return the state that `to_json` wrote."""
        names = cls.__dataclass_fields__
        values = {name: data[name] for name in names if name in data}
        values["cursor"] = Cursor.from_state(data["cursor"])
        values["totals"] = {k: (float(s), int(n)) for k, (s, n) in data["totals"].items()}
        return cls(**values)


def write_folder(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    state: str,
    tensors: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder; a crash at any moment leaves the one before it whole.

    Args:
        folder: `checkpoint_last` or `checkpoint_best`.
        weights: by LAVIS key names.
        state: text of `trainer_state.json`.
        tensors: optimizer, scaler and RNG states; None leaves the file out.
    """
    with AtomicFolder(folder) as part:
        save_safetensors(part / MODEL, weights, {"format": "pt"})
        if tensors is not None:
            save_torch(part / TENSORS, dict(tensors))
        write_text(part / STATE, state)


def replace_state(folder: Path, state: str) -> None:
    """Replace `trainer_state.json` alone, once a validation is done."""
    write_text(folder / STATE, state)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder as read; tensors are on the CPU."""

    folder: Path
    weights: dict[str, Tensor]
    tensors: dict[str, Any]
    state: TrainerState
    identity: dict[str, Any]


def read_folder(folder: Path) -> Checkpoint:
    """Read a `checkpoint_last` folder; `DataError` if a file is missing or cannot be read."""
    recover_folder(folder)
    if folder.is_file() or not (folder / TENSORS).is_file():
        raise DataError(
            f"{folder}: not a folder to resume from, it has no {TENSORS}; name a checkpoint_last "
            "folder, or start from weights alone with model.pretrained"
        )
    try:
        tensors = torch.load(folder / TENSORS, map_location="cpu", weights_only=True)
        data = json.loads((folder / STATE).read_text("utf-8"))
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{folder}: cannot be read: {error}") from error
    if data.get("format") != FORMAT:
        raise DataError(
            f"{folder / STATE}: format {data.get('format')!r}; this code reads {FORMAT}"
        )
    weights = read_state_dict(folder / MODEL)
    return Checkpoint(folder, weights, tensors, TrainerState.from_dict(data), data["identity"])


def check_identity(checkpoint: Checkpoint, identity: Mapping[str, Any], *, strict: bool) -> None:
    """Compare a checkpoint's config with this run's; warn, or with `strict` raise `ConfigError`."""
    if "data" not in checkpoint.identity:  # written before data were noted
        identity = {key: value for key, value in identity.items() if key != "data"}
    changes = difference(checkpoint.identity, identity)
    if not changes:
        return
    if not strict:
        logger.warning("%s was written with another config: %s", checkpoint.folder, changes)
        return
    raise ConfigError(
        f"run.output_dir: {checkpoint.folder} belongs to another training ({changes}); "
        "choose another run.output_dir, start over with run.resume=never, or go on regardless with "
        f"run.resume_ckpt_path={checkpoint.folder}"
    )


def rng_state() -> dict[str, Any]:
    """Return the states of all generators of this process, loadable with `weights_only=True`."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],  # type: ignore
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Set all generators to what `rng_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
