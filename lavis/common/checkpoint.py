"""Weights on disk: read any form safely, download once, write atomically, report a load."""

from __future__ import annotations

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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lavis.common.errors import DECODE_REFUSALS, REFUSALS, DataError, brief
from lavis.common.storage.atomic import AtomicFile, AtomicPath
from lavis.common.storage.foreign import foreign_kind, foreign_kind_of

logger = logging.getLogger(__name__)

_UNREADABLE: tuple[type[Exception], ...] = (*DECODE_REFUSALS, RuntimeError)
_CUT = "it is cut short"
_LONGEST_HEADER = 100_000_000  # bytes of a safetensors header, the library's own limit
# Parts of names that `torch.compile`, FSDP and activation checkpointing add, wherever they wrap.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # each also sharded, with an index


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave a model and what it did not, in the model's own key names.

    Attributes:
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
        """Log one line, and a warning for each mismatch that a user should know of."""
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

    Files hold tensors by name, or such a mapping under `model`, `state_dict`, `model_state_dict` or
    `module`; what wrappers (DDP, `torch.compile`, FSDP) put into names is removed. Pickles are read
    with `weights_only=True`.

    Example:
        >>> report = model.load_state(read_state_dict("output/checkpoint_best"))

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
    kind = foreign_kind_of(path)
    if kind is not None:
        raise DataError(f"{path} is {kind}")
    with open(path, "rb") as file:
        head = file.read(8)
    if head[:1] in (b"{", b"[") and head.isascii() and b"\0" not in head:
        raise DataError(f"{path} is JSON text, not weights; download the file again")
    if path.suffix == ".safetensors":
        state: Any = _read_safetensors(path)
    else:
        state = _unwrap(_read_pickle(path), path)
    return plain_names(state, str(path))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    cut = _missing_bytes(path)
    if cut:
        raise DataError(f"{path}: not a readable safetensors file: {cut}")
    try:
        with safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # the library raises its own, undocumented type
        raise DataError(f"{path}: not a readable safetensors file: {brief(error)}") from None


def _missing_bytes(path: Path) -> str:
    """Return why a safetensors file is not whole by its header's own numbers, or ''."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            return "" if length > _LONGEST_HEADER else f"{_CUT} inside its header"
        try:
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
            whole = 8 + length + max(ends, default=0)
        except REFUSALS:
            return ""  # the library reports this itself
    return f"{_CUT}: {size} of {whole} bytes are there" if size < whole else ""


def plain_names(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Strip name parts of `torch.compile`, FSDP and DDP; `DataError` if two names become one."""
    named = {name: ".".join(p for p in name.split(".") if p not in _WRAPPERS) for name in state}
    while named and all(name.startswith("module.") for name in named.values()):
        named = {name: plain.removeprefix("module.") for name, plain in named.items()}
    plain_state = {plain: state[name] for name, plain in named.items()}
    if len(plain_state) < len(state):
        twice = next(name for name, count in Counter(named.values()).items() if count > 1)
        raise DataError(f"{source}: holds '{twice}' twice, once under a wrapper's name")
    return plain_state


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        match = re.search(r"[Uu]nsupported (?:global|class|operand)[^.]*?([\w.]+\.[\w.]+)", reason)
        what = f" ({match[1]})" if match else ""
        raise DataError(
            f"{path}: refused, the file holds objects other than tensors{what} and opening it "
            "could run code; save the state dict alone, or as .safetensors"
        ) from None
    except _UNREADABLE as error:
        cut = _is_cut_archive(path) or "EOF" in str(error) or isinstance(error, EOFError)
        reason = f"{_CUT}; copy or download it again" if cut else brief(error)
        raise DataError(f"{path}: not a readable checkpoint: {reason}") from None


def _is_cut_archive(path: Path) -> bool:
    """Return whether a file begins as the zip archive that torch writes, and lacks its end."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in ("model", "state_dict", "model_state_dict", "module"):
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
    """Return the sorted files that a sharded checkpoint's index names; `DataError` if damaged."""
    kind = foreign_kind_of(index)
    if kind is not None:
        raise DataError(f"{index} is {kind}")
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
    """Return a URL's cache file, named by the URL's SHA-256: equal basenames do not collide."""
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
        with FileLock(f"{target}.lock"):
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
        head = reply.read(1 << 10)
        kind = foreign_kind(head)
        if kind is not None:
            raise OSError(f"the server sent {kind}")
        file.write(head)
        shutil.copyfileobj(reply, file, 1 << 20)
        if expected is not None and file.tell() != int(expected):
            raise OSError(f"got {file.tell()} of {expected} bytes")


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
    """Save with `torch.save` so that the file is the old one or the whole new one."""
    with AtomicFile(path) as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides the system's error behind it
                raise error.__context__ from None
            raise
