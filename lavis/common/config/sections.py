"""Run files of scripts: any named sections, each checked against its own class.

`lavis.common.config.loading` reads run files of `train.py` and `evaluate.py` (`model`, `datasets`,
`run`); this reads those of other commands by the same rules: YAML, then `--options`, then a check
of everything before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis.common.config.errors import FAILED, UNKNOWN, Fault, Faults, check_section
from lavis.common.config.files import (
    contains,
    merge_options,
    parse_options,
    read_yaml,
    resolve,
    run_file,
)
from lavis.common.errors import nearest
from lavis.common.registry import import_module


@dataclass(frozen=True)
class Sections:
    """Checked sections of one run file, and `tree`: the same as plain, resolved containers."""

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
        options: `a.b=c` items, or alternating keys and values; they win over the file.
        classes: section name -> dataclass, or any type pydantic can check. A section missing from
            the file is checked as an empty one.

    Example:
        >>> sections = load_sections("run.yaml", ["run.seed=1"], command_sections("verbalize"))
        >>> sections["run"].seed
        1

    Raises:
        ConfigError: a line for each fault, unknown keys first, then wrong values, then missing
            files; each names file, full key and what is valid.
    """
    path = run_file(cfg_path)
    faults = Faults()
    file: Any = faults.attempt(read_yaml, path)
    if file is FAILED:
        faults.attempt(parse_options, list(options or []))
        faults.check()  # all other faults depend on the file
    overrides, merged = merge_options(file, list(options or []), faults)

    def source(key: str) -> str:
        return "--options" if contains(overrides, key) else path.name

    for name in map(str, merged):
        if name not in classes:
            hint = nearest(name, classes)
            faults.add([Fault(UNKNOWN, f"{source(name)}, {name}: unknown section{hint}")])
    resolved, unread = resolve(merged, source)
    faults.add(unread)
    tree = {name: node or {} for name, node in resolved.items()}
    run = tree.get("run")
    modules = run.get("import_modules") if isinstance(run, dict) else None
    for module in modules if isinstance(modules, list) else []:  # else its type is reported below
        where = f"{source('run.import_modules')}, run.import_modules"
        faults.attempt(import_module, str(module), where)
    checked: dict[str, Any] = {}
    for name, cls in classes.items():
        checked[name], section_faults = check_section(
            cls, tree.get(name, {}), name, source=source, absent=[each.key for each in unread]
        )
        faults.add(section_faults)
    faults.check()
    return Sections(checked, tree)
