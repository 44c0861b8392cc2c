"""Weights on disk: read any form safely, download once, write atomically, report a load."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lavis.common.errors import DataError
from lavis.common.refusals import REFUSALS, brief
from lavis.common.storage import AtomicFile, AtomicPath

logger = logging.getLogger(__name__)

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # each also sharded, with an index


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave a model and what it did not, in the model's own key names.

    Attributes:
        source: where the weights came from.
        missing: weights of the model that the checkpoint lacks.
        unexpected: weights of the checkpoint that the model has no place for.
        resized: name -> (shape in the file, shape in the model), where values were fitted.
        missing_trainable: those of `missing` that training would change.
        fresh: those of `missing` that may start at random (heads a task adds).
    """

    source: str
    loaded: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    resized: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing_trainable: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()

    def log(self) -> None:
        """Log one line, and a warning for each thing a user should know of."""
        logger.info("loaded %d weights from %s", self.loaded, self.source)
        for name, (old, new) in self.resized.items():
            logger.info("resized %s from %s to %s", name, list(old), list(new))
        if self.unexpected:
            logger.warning("no place for %s", shorten(self.unexpected))
        if self.fresh:
            logger.warning("%s: not in %s, random until trained", shorten(self.fresh), self.source)


def shorten(names: Iterable[str], most: int = 8) -> str:
    """Return names with numbers folded: `blocks.*.norm1.weight (39), ln.bias, and 3 more`."""
    folded = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    shown = [f"{name} ({n})" if n > 1 else name for name, n in list(folded.items())[:most]]
    rest = len(folded) - len(shown)
    return ", ".join(shown) + (f", and {rest} more" if rest > 0 else "")


def read_state_dict(source: str | Path) -> dict[str, Tensor]:
    """Read weights from a file, a URL or a Hugging Face folder, onto the CPU.

    Files hold tensors by name, or such a mapping under `model` or `state_dict`; a `module.` prefix
    of a wrapped model is removed. Pickles are read with `weights_only=True`.

    Raises:
        DataError: no such file, failed download, a pickle that holds code, no tensors.
    """
    if "://" in str(source):
        return _read_file(download(str(source)))
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise DataError(f"no such checkpoint: {path}")
    return _read_file(path)


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as tensors:
                state: Any = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        except Exception as error:  # the library raises its own, undocumented type
            raise DataError(f"{path}: not a readable safetensors file: {error}") from None
    else:
        state = _unwrap(_read_pickle(path), path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        found = re.search(r"[Uu]nsupported (?:global|class|operand)[^.]*?([\w.]+\.[\w.]+)", reason)
        what = f" ({found.group(1)})" if found else ""
        raise DataError(
            f"{path}: refused, the file holds objects other than tensors{what} and opening it "
            "could run code; save the state dict alone, or as .safetensors"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise DataError(f"{path}: not a readable checkpoint: {error}") from None


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if state:
            return state
    raise DataError(f"{path}: no tensors found, neither at the top nor under 'model'")


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for name in FOLDER_FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return _read_file(folder / name)
        if index.is_file():
            shards = _listed_shards(index)
            absent = [shard for shard in shards if not (folder / shard).is_file()]
            if absent:
                raise DataError(f"{index} names {', '.join(absent)}, not in the folder")
            state: dict[str, Tensor] = {}
            for shard in shards:
                state.update(_read_file(folder / shard))
            return state
    raise DataError(f"{folder}: no weights in the folder; expected {' or '.join(FOLDER_FILES)}")


def _listed_shards(index: Path) -> list[str]:
    """Return the files that an index of a sharded checkpoint names, sorted.

    Raises:
        DataError: it is cut or holds something else.
    """
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        if not names or not all(isinstance(n, str) and n == os.path.basename(n) for n in names):
            raise ValueError("'weight_map' names no files of the folder")
        return sorted(names)
    except KeyError as error:
        raise DataError(f"{index}: no {error} in it, so it lists no weights") from None
    except REFUSALS as error:
        raise DataError(f"{index}: not an index of weights: {brief(error)}") from None


def cache_folder() -> Path:
    """Return where downloads are kept: `$LAVIS_CACHE/checkpoints`, or under `~/.cache/lavis`."""
    root = os.environ.get("LAVIS_CACHE") or Path.home() / ".cache" / "lavis"
    return Path(root).expanduser() / "checkpoints"


def cached_path(url: str) -> Path:
    """Return the file a URL is kept in; the name holds the URL's SHA-256, so equal basenames of
    different URLs do not collide."""
    name = url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    return cache_folder() / f"{hashlib.sha256(url.encode()).hexdigest()}-{name}"


def download(url: str) -> Path:
    """Return the cached file of a URL, downloaded on first use by one process of the machine.

    Raises:
        DataError: the download failed; the message names the URL and where to place the file.
    """
    target = cached_path(url)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if not target.is_file():  # another process may have fetched it meanwhile
                logger.info("downloading %s to %s", url, target)
                _fetch(url, target)
    except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot download {url} ({reason}); fetch the file elsewhere and place it at {target}"
        ) from None
    return target


def _fetch(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as reply, AtomicFile(target) as file:
        expected = reply.headers.get("Content-Length")
        shutil.copyfileobj(reply, file, 1 << 20)
        if expected is not None and file.tell() != int(expected):
            raise OSError(f"got {file.tell()} of {expected} bytes")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a machine-wide lock; where the system has none, the atomic rename alone must do."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def save_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors so that the file is either the old one or the whole new one, never torn.

    Args:
        path: the file; its folder is made.
        tensors: any device; tensors that share memory are written each in full.
        metadata: short texts kept in the header.
    """
    whole = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
    seen: set[int] = set()
    for name, tensor in whole.items():
        pointer = tensor.untyped_storage().data_ptr()
        if pointer in seen:
            whole[name] = tensor.clone()
        seen.add(pointer)
    with AtomicPath(path) as temporary:
        try:
            save_file(whole, temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # holds the system's error as text
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from None


def save_torch(path: str | Path, value: Any) -> None:
    """Write what `torch.save` takes so that the file is the old one or the whole new one."""
    with AtomicFile(path) as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides the system's error behind it
                raise error.__context__ from None
            raise
