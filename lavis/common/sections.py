"""Run files of scripts: any named sections, each checked against its own class.

`lavis.common.config` reads run files of `train.py` and `evaluate.py` (`model`, `datasets`, `run`);
this reads those of commands that train nothing, by the same rules: YAML, then `--options`, then a
check of everything before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from lavis.common.config import contains, parse_options, read_yaml, resolve
from lavis.common.config_errors import explain
from lavis.common.errors import ConfigError, nearest


@dataclass(frozen=True)
class Sections:
    """Checked sections of one run file.

    Attributes:
        checked: section name -> what its class made of it.
        tree: the same as plain containers, interpolations resolved.
    """

    checked: dict[str, Any]
    tree: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.checked[name]

    def to_yaml(self) -> str:
        """Return the resolved tree as YAML text."""
        return OmegaConf.to_yaml(OmegaConf.create(self.tree))


def load_sections(
    cfg_path: str | Path, options: Sequence[str] | None, classes: Mapping[str, Any]
) -> Sections:
    """Merge, resolve and check a run file.

    Args:
        cfg_path: the run YAML.
        options: `a.b=c` items, or alternating keys and values; they win over the file.
        classes: section name -> dataclass, or any type pydantic can check. A section that the
            file does not have is checked as an empty one.

    Raises:
        ConfigError: a line for each problem, naming file, full key and what is valid.
    """
    path = Path(cfg_path)
    file, given = read_yaml(path), parse_options(list(options or []))
    merged = OmegaConf.merge(file, given)
    assert isinstance(merged, DictConfig)

    def source(key: str) -> str:
        return "--options" if contains(given, key) else path.name

    for name in map(str, merged):
        if name not in classes:
            hint = nearest(name, classes)
            raise ConfigError(f"{source(name)}, {name}: unknown section{hint}")
    tree = {name: node or {} for name, node in resolve(merged).items()}
    checked: dict[str, Any] = {}
    problems = []
    for name, cls in classes.items():
        node = tree.get(name, {})
        try:
            checked[name] = TypeAdapter(cls).validate_python(node)
        except ValidationError as error:
            problems.append(explain(error, cls, node, name, source=source))
    if problems:
        raise ConfigError("\n".join(problems))
    return Sections(checked, tree)


def load_section(cfg_path: str | Path, options: Sequence[str] | None, name: str, cls: Any) -> Any:
    """Return the one section of a run file that has no other; see `load_sections`."""
    return load_sections(cfg_path, options, {name: cls})[name]
