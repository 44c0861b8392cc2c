"""From YAML files and `--options` to merged containers, with the faults of their text."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis.common.config.errors import WRONG, Fault, Faults
from lavis.common.config.renamed import present_names
from lavis.common.errors import ConfigError
from lavis.common.storage.foreign import foreign_kind_of

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[2]


def run_file(name: str | Path) -> Path:
    """Return a run file's path; a missing `lavis/...` is looked for in the package."""
    path = Path(name)
    shipped = PACKAGE.parent / path
    is_shipped = path.parts[:1] == (PACKAGE.name,) and shipped.is_file()
    return shipped if is_shipped and not path.is_file() else path


def read_yaml(path: Path) -> DictConfig:
    """Return a file's mapping; `ConfigError` if it has none, with a line for each repeated key."""
    if not path.is_file():
        raise ConfigError(f"no such config file: {path}")
    kind = foreign_kind_of(path) if path.stat().st_size else None
    if kind is not None:
        raise ConfigError(f"{path} is {kind}")
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        twice = list(_repeated_keys(root, "", set()))
        node = OmegaConf.create({}) if twice else OmegaConf.load(path)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except Exception as error:  # YAML errors come as several unrelated types
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if twice:
        raise ConfigError("\n".join(f"{path.name}, {line}" for line in twice))
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{path}: a mapping was expected at the top")
    return present_names(node, path.name)


def parse_options(options: Sequence[str]) -> DictConfig:
    """Read `a.b=c ...` or alternating keys and values, values typed as in YAML.

    Raises:
        ConfigError: a line for each that cannot be read.
    """
    faults = Faults()
    overrides, _ = merge_options(OmegaConf.create({}), options, faults)
    faults.check()
    return overrides


def merge_options(
    file: DictConfig, options: Sequence[str], faults: Faults
) -> tuple[DictConfig, DictConfig]:
    """Return the options alone, and over a file; those that cannot be read are faults."""
    overrides: Any = OmegaConf.create({})
    written: Any = OmegaConf.create({})
    merged: Any = OmegaConf.merge(file)
    seen: set[str] = set()
    for item in _items(options, faults):
        key, _, value = item.partition("=")
        if not all(key.strip().split(".")):
            faults.add([Fault(WRONG, f"--options: {item!r} has no key; write key=value")])
            continue
        if not value.strip():
            # A shell variable that is not set leaves nothing; taken for null, an address that was
            # meant to be one's own server would be the default one.
            text = f"--options: {item!r} has no value; write {key}=null to have none"
            faults.add([Fault(WRONG, text)])
            continue
        if key in seen:
            logger.warning("--options: %s is given twice; the last counts", key)
        seen.add(key)
        try:
            one = OmegaConf.from_dotlist([item])
            written = OmegaConf.merge(written, one)
            one = present_names(one, "--options", warn=False)
            overrides, merged = OmegaConf.merge(overrides, one), OmegaConf.merge(merged, one)
        except Exception as error:  # YAML and grammar errors come as several unrelated types
            reason = " ".join(str(error).split())
            if re.search(r"\[\d+\]|\.\d+$", key):
                reason = "part of a list cannot be set; give the whole list, key=[...]"
            faults.add([Fault(WRONG, f"--options: {item!r}: {reason}")])
    faults.attempt(present_names, written, "--options")
    return overrides, merged


def resolve(
    tree: DictConfig, source: Callable[[str], str] | None = None
) -> tuple[dict[str, Any], list[Fault]]:
    """Return plain containers without the values that cannot be resolved, and a fault for each.

    Args:
        tree: changed where a value cannot be resolved.
        source: full key -> where its value was written.
    """
    faults = []
    for key, raw in list(_references(tree)):
        try:
            OmegaConf.select(tree, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            reason = str(error).split("\n")[0]
            text = f"cannot resolve {raw!r} ({reason}); set it, or give --options {key}=..."
            place = source(key) if source is not None else "config"
            faults.append(Fault(WRONG, text, key.replace("[", ".").replace("]", ""), place))
            OmegaConf.update(tree, key, None)
    container: Any = OmegaConf.to_container(tree, resolve=True)
    for fault in faults:
        _drop(container, fault.key.split("."))
    return container, faults


def contains(node: DictConfig, key: str) -> bool:
    """Return whether a dotted key has a value in a tree."""
    current: Any = OmegaConf.to_container(node, resolve=False)  # an interpolation stays a text
    for part in key.split("."):
        if not isinstance(current, dict) or part not in current:
            return False
        current = current[part]
    return True


def _items(options: Sequence[str], faults: Faults) -> Iterator[str]:
    """Yield `key=value` items; others are faults."""
    items = list(options)
    if items and "=" not in items[0]:
        if len(items) % 2:
            text = f"--options: {items[-1]!r} has no value; write key=value"
            faults.add([Fault(WRONG, text)])
        items = [f"{k}={v}" for k, v in zip(items[::2], items[1::2], strict=False)]
    for item in items:
        if "=" in item:
            yield item
        else:
            faults.add([Fault(WRONG, f"--options: {item!r} has no value; write key=value")])


def _repeated_keys(node: Any, prefix: str, seen: set[int]) -> Iterator[str]:
    """Yield `key: given twice, in lines ...` for every mapping; YAML itself takes the last."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _repeated_keys(item, f"{prefix}[{position}]", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for name, value in node.value:
        text = str(name.value)
        key = f"{prefix}.{text}" if prefix else text
        line = name.start_mark.line + 1
        if text in lines and text != "<<":
            yield f"{key}: given twice, in lines {lines[text]} and {line}; keep one"
        lines[text] = line
        yield from _repeated_keys(value, key, seen)


def _references(tree: Any) -> Iterator[tuple[str, str]]:
    """Yield `(full key, raw text)` of every value that refers to another."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, item in value.items():
                yield from walk(item, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            for position, item in enumerate(value):
                yield from walk(item, f"{key}[{position}]")
        elif isinstance(value, str) and "${" in value:
            yield key, value

    yield from walk(OmegaConf.to_container(tree, resolve=False), "")


def _drop(container: Any, parts: list[str]) -> None:
    *above, last = parts
    for part in above:
        container = container[int(part)] if isinstance(container, list) else container[part]
    if isinstance(container, dict):
        container.pop(last, None)
