"""What a run was made with: versions, commit, command; written beside its results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from lavis.common.storage import remove_leftovers, write_json, write_text

PACKAGES = ("torch", "torchvision", "transformers", "timm", "accelerate", "numpy", "pillow")


def describe_environment(*, seed: int, run_id: str, world_size: int) -> dict[str, Any]:
    """Return package versions, commit (None outside a checkout), command line, seed and size."""
    versions = {"python": platform.python_version()}
    for name in ("lavis-commonsense", *PACKAGES):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "run_id": run_id,
        "seed": seed,
        "world_size": world_size,
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "commit": _commit(),
        "versions": versions,
        "platform": platform.platform(),
    }


def write_provenance(folder: Path, config_yaml: str, environment: dict[str, Any]) -> None:
    """Write `config.yaml` and `environment.json`, once a run into `folder` is accepted.

    What a killed run left of files it was writing there is removed.
    """
    remove_leftovers(folder, depth=2)
    write_text(folder / "config.yaml", config_yaml)
    write_json(folder / "environment.json", environment)


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
