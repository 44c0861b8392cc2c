"""Keys, values and flags that have another name now: the former one works, with one warning.

What finished work is looked up by was written with the former names: `former_names` gives them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis.common.errors import ConfigError

logger = logging.getLogger(__name__)

# Former key -> its last part now; `*` stands for any names.
RENAMED = {
    "pictures": "images",
    "run.pictures": "images",
    "run.pictures_per": "images_per",
    "run.blank_pictures": "blank_images",
    "model.same_picture": "same_image",
    "datasets.*.with_pictures": "with_images",
    "llm.picture_tokens": "image_token_rule",
    "stages.*.client.picture_tokens": "image_token_rule",
    # Arguments of `lavis-lm-eval --model_args`.
    "pictures_of": "images_of",
    "picture_size": "image_size",
}
# Key -> a value's former and present name.
RENAMED_VALUES = {
    "run.columns": ("pictures", "images"),
    "datasets.*.image_id": ("picture", "image"),
}
RENAMED_FLAGS = {"--picture-source": "--image-source"}

_FORMER = {
    f"{key.rpartition('.')[0]}.{name}": key.rpartition(".")[2]
    for key, name in RENAMED.items()
    if "." in key
}
_FORMER_VALUES = {key: (new, old) for key, (old, new) in RENAMED_VALUES.items()}
_Names = Mapping[str, str]
_Values = Mapping[str, tuple[str, str]]


def present_names(node: DictConfig, where: str, *, warn: bool = True) -> DictConfig:
    """Return a run file's tree by its names of today; see `present_options`."""
    plain: Any = OmegaConf.to_container(node, resolve=False)
    tree = present_options(plain, where, warn=warn)
    return node if tree == plain else OmegaConf.create(tree)


def present_options(
    options: Mapping[str, Any], where: str = "", *, warn: bool = True
) -> dict[str, Any]:
    """Return options by their names of today, references to keys included.

    Args:
        options: plain containers, from the root of a run file on.
        where: the file (or `--options`) that they stand in.
        warn: say so once for each former name.

    Raises:
        ConfigError: a key is there by both names.
    """
    used: dict[str, str] = {}
    prefix = f"{where}, " if where else ""
    try:
        tree: dict[str, Any] = _translated(dict(options), "", RENAMED, RENAMED_VALUES, used)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None
    for former, name in used.items() if warn else ():
        _warn(f"{prefix}{former}", name)
    return tree


def former_names(options: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Return options by the names that identities of saved work were first written with.

    Args:
        options: plain containers.
        place: dotted key that they stand at, such as `run` or `datasets.x`; '' for a whole tree.
    """
    translated: dict[str, Any] = _translated(dict(options), place, _FORMER, _FORMER_VALUES, {})
    return translated


def present_key(key: str) -> str:
    """Return the present name of a dotted key."""
    parts: list[str] = []
    for part in key.split("."):
        parts.append(_lookup(RENAMED, ".".join([*parts, part])) or part)
    return ".".join(parts)


def present_flags(argv: Sequence[str]) -> list[str]:
    """Return a command line by the flags of today; `ConfigError` if one is given by both names."""
    arguments = list(argv)
    for former, name in RENAMED_FLAGS.items():
        places = [n for n, each in enumerate(arguments) if each.partition("=")[0] == former]
        if places and any(each.partition("=")[0] == name for each in arguments):
            raise ConfigError(f"{former}: {name}, its name now, is given too; keep that")
        for place in places:
            arguments[place] = name + arguments[place].removeprefix(former)
        if places:
            _warn(former, name)
    return arguments


def _warn(former: str, name: str) -> None:
    logger.warning("%s is called %s now; the former name works for one more release", former, name)


def _translated(node: Any, key: str, names: _Names, values: _Values, used: dict[str, str]) -> Any:
    """Return containers with names replaced; `used` gets each former name and its replacement."""
    if isinstance(node, dict):
        result: dict[Any, Any] = {}
        for name, value in node.items():
            full = f"{key}.{name}" if key else str(name)
            new = _lookup(names, full)
            if new is not None:
                present = f"{key}.{new}" if key else new
                if new in node:
                    raise ConfigError(f"{full}: {present}, its name now, is given too; keep that")
                used[full] = present
                name, full = new, present
            result[name] = _translated(value, full, names, values, used)
        return result
    if isinstance(node, list):
        return [_translated(item, key, names, values, used) for item in node]
    if isinstance(node, str) and "${" in node and names is RENAMED:
        for reference in re.findall(r"\$\{([\w.]+)\}", node):
            if present_key(reference) != reference:
                used[reference] = present_key(reference)
                node = node.replace(f"${{{reference}}}", f"${{{used[reference]}}}")
        return node
    old, new = _lookup(values, key) or (None, None)
    if isinstance(node, str) and node == old:
        used[f"{key}={old}"] = f"{key}={new}"
        return new
    return node


def _lookup(table: Mapping[str, Any], key: str) -> Any:
    return next((new for pattern, new in table.items() if fnmatchcase(key, pattern)), None)
