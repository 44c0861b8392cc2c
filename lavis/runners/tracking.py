"""TensorBoard and Weights & Biases through accelerate, only where `run.trackers` names them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from lavis.common.config.difference import flat

PROJECT = "lavis"


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
    shown = {  # numbers and texts are all that tensorboard's table can show
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flat(tree)
    }
    accelerator.init_trackers(PROJECT, config=shown, init_kwargs=settings)


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
