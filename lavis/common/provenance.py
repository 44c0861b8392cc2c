"""What a run was made with: versions, commit, command; written beside its results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

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
    """Write `config.yaml` and `environment.json` into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "config.yaml", config_yaml)
    replace_text(folder / "environment.json", json.dumps(environment, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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
