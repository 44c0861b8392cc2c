"""TensorBoard and Weights & Biases through accelerate, only where `run.trackers` names them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from lavis.common.errors import ConfigError

PROJECT = "lavis"


def check_trackers(names: Sequence[str]) -> None:
    """Raise `ConfigError` where a tracker's package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"run.trackers: {name} is not installed; pip install 'lavis-commonsense[track]'"
            )


def start_trackers(
    accelerator: Accelerator, names: Sequence[str], *, folder: Path, run_id: str, tree: Any
) -> None:
    """Open the trackers on rank 0, in `<folder>/lavis` (tensorboard) and `<folder>/wandb`.

    Without `WANDB_API_KEY` or `WANDB_MODE` wandb runs offline; `wandb sync` sends such a run later.
    """
    if not names:
        return
    online = "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ
    wandb = {"dir": str(folder), "name": f"{folder.name}-{run_id}"}
    if not online:
        wandb["mode"] = "offline"
    settings = {"wandb": wandb} if "wandb" in names else {}
    accelerator.init_trackers(PROJECT, config=_flat(tree), init_kwargs=settings)


def track(accelerator: Accelerator, values: Mapping[str, Any], *, kind: str, step: int) -> None:
    """Send the numbers among the values as `<kind>/<name>`."""
    sent = {f"{kind}/{name}": float(value) for name, value in numbers(values).items()}
    if accelerator.trackers and sent:
        accelerator.log(sent, step=step)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that are numbers; `True` and `False` are none."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def stop_trackers(accelerator: Accelerator) -> None:
    """Close the trackers; the process group stays."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return a config as `a.b.c` -> number or text, all that tensorboard's table can show."""
    if isinstance(tree, Mapping):
        flat: dict[str, Any] = {}
        for name, value in tree.items():
            flat.update(_flat(value, f"{prefix}.{name}" if prefix else str(name)))
        return flat
    plain = isinstance(tree, bool | int | float | str)
    return {prefix: tree if plain else str(tree)}
