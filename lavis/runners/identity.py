"""Fingerprints that tell whether saved work belongs to this run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lavis.common.config.renamed import former_names
from lavis.common.sharded import as_bytes, named_weights
from lavis.common.storage.atomic import write_json, write_text
from lavis.common.storage.leftovers import remove_leftovers
from lavis.common.storage.plan import UnitPlan

# Keys of `run` that change neither weights nor scores.
_FREE = {
    "device", "evaluate", "export_vlmig", "import_modules", "keep_above", "log_freq",
    "num_workers", "output_dir", "report_examples", "report_metric", "report_traces",
    "resamples", "resume", "resume_ckpt_path",
    "save_every_steps", "save_frozen", "test_splits", "timeout_minutes", "trackers",
}  # fmt: skip
# Keys of `run` that change no weights, beside those.
_EVALUATION_ONLY = {"amp_eval", "batch_size_eval", "calibrate"}
# Keys of `run` that change scores; all that training reads is in the weights.
_SCORING = {"task", "batch_size_eval", "amp_eval", "amp_dtype"}


def training_identity(
    tree: Mapping[str, Any], data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what trained weights depend on, JSON-able.

    Of the config, `valid_splits` belong to it: they choose the best checkpoint.

    Args:
        data: fingerprints of the training data by name.
    """
    tree = former_names(tree)
    run = {k: v for k, v in tree.get("run", {}).items() if k not in _FREE | _EVALUATION_ONLY}
    parts = {name: tree.get(name, {}) for name in ("model", "datasets")}
    return _jsonable({**parts, "run": run, **({"data": data} if data else {})})


def scoring_identity(
    tree: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    weights: str,
    task: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything on which the scores of one data set depend, JSON-able.

    Args:
        tree: the resolved config. All of `model` counts, also where its weights lie.
        data: `dataset.fingerprint()`.
        weights: `WeightDigest` of the model.
        task: the task's own options that change scores.
    """
    tree = former_names(tree)
    run = {k: v for k, v in tree.get("run", {}).items() if k in _SCORING}
    parts = {"model": tree.get("model", {}), "run": run, "data": data, "weights": weights}
    return _jsonable({**parts, **({"task": task} if task else {})})


def plan_digest(plan: UnitPlan) -> str:
    """Return a hash of which rows belong to which unit."""
    state = hashlib.blake2b(digest_size=16)
    for part in (plan.order, plan.offsets):
        state.update(part.tobytes())
    return state.hexdigest()


class WeightDigest:
    """Hash of a model's weights and buffers; frozen ones are read only once.

    Names and values of `state_dict()` count, whatever device holds them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._frozen: str | None = None

    def __call__(self) -> str:
        """Return the hash of the weights as they are now."""
        settle = getattr(self._model, "frozen_fingerprint", None)
        if self._frozen is None and settle is not None:
            settle()  # a model may choose its tower's precision on this first call
        trainable = {id(p) for p in self._model.parameters() if p.requires_grad}
        kept: dict[str, Tensor] = {}
        moving: dict[str, Tensor] = {}
        for name, value in named_weights(self._model):
            frozen = isinstance(value, nn.Parameter) and id(value) not in trainable
            (kept if frozen else moving)[name] = value
        if self._frozen is None:
            self._frozen = digest(kept)
        return hashlib.blake2b((self._frozen + digest(moving)).encode(), digest_size=16).hexdigest()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and values."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        state.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        state.update(as_bytes(tensor))
    return state.hexdigest()


def _jsonable(tree: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(tree, default=str, sort_keys=True))
    return plain


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

    Unfinished files that a killed run left there are removed.
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
