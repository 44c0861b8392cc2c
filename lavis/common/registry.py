"""Names users write in a config, and the classes they stand for, imported when first used.

The classes of this package stand in `lavis/configs/registry.yaml` by their paths, so that checking
a configuration or printing `--help` imports no torch. Any other class joins in a module listed
under `run.import_modules`: with `@models.register("name")`, or with
`models.extend("name", Target(...))`, which imports it when first used.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import yaml

from lavis.common.errors import ConfigError, nearest

T = TypeVar("T", bound=type)
TABLE = Path(__file__).resolve().parents[1] / "configs" / "registry.yaml"


@dataclass(frozen=True)
class Target:
    """Where a registered class lives.

    Attributes:
        cls: `package.module:Class`.
        config: `package.module:Dataclass` that checks its section of a config; a light import.
        defaults: type name -> default YAML, relative to `lavis/configs`.
    """

    cls: str
    config: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Names of one kind of thing. Never returns None: an unknown name raises `ConfigError`.

    Args:
        kind: the word for such a thing in messages.
        targets: name -> class (None: those of the kind in `lavis/configs/registry.yaml`).
        plugins: name, or type, -> module outside this package that registers it, for an error.
    """

    def __init__(
        self,
        kind: str,
        targets: Mapping[str, Target] | None = None,
        plugins: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._own_targets = targets
        self._classes: dict[str, type] = {}
        self._extensions: dict[str, Target] = {}
        self._plugins = dict(plugins or {})

    @functools.cached_property
    def _targets(self) -> Mapping[str, Target]:
        return _shipped()[self.kind] if self._own_targets is None else self._own_targets

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator; `ConfigError` if the name is taken by another class.

        Example:
            >>> @tasks.register("my_task")
            ... class MyTask(BaseTask): ...
        """

        def decorate(cls: T) -> T:
            path = f"{cls.__module__}:{cls.__qualname__}"
            taken = self._classes.get(name)
            target = self._targets.get(name)
            if taken is not None or (target is not None and target.cls != path):
                owner = target.cls if target is not None else f"{taken}"
                raise ConfigError(f"{self.kind} '{name}' is registered already, as {owner}")
            self._classes[name] = cls
            return cls

        return decorate

    def extend(self, name: str, target: Target) -> None:
        """Let a class of a plug-in stand for `name` in this process, and add its default YAMLs.

        The name is new, or that of a class here; then sections that this class accepts must mean
        the same to the plug-in's.

        Raises:
            ConfigError: the name is extended by another class.
        """
        if self._extensions.setdefault(name, target) != target:
            owner = self._extensions[name].cls
            raise ConfigError(f"{self.kind} '{name}' is extended already, by {owner}")

    def get(self, name: str) -> Any:
        """Return the class of `name`, importing its module on first use."""
        self.check(name)
        if name in self._extensions:
            return load(self._extensions[name].cls)
        if name not in self._classes:
            self._classes[name] = load(self._targets[name].cls)
        return self._classes[name]

    def config_class(self, name: str) -> Any:
        """Return the dataclass that checks this thing's section, without importing the thing."""
        self.check(name)
        target = self._extensions.get(name, self._targets.get(name))
        if target is not None and target.config is not None:
            return load(target.config)
        return self.get(name).config_class

    def defaults(self, name: str) -> Mapping[str, str]:
        """Return type name -> default YAML (relative to `lavis/configs`, or absolute)."""
        self.check(name)
        targets = [self._targets.get(name), self._extensions.get(name)]
        if not any(targets):
            return getattr(self._classes[name], "default_configs", {})
        return {k: v for target in targets if target for k, v in target.defaults.items()}

    def check(self, name: str, key: str = "") -> None:
        """Raise `ConfigError` with near matches unless `name` is known."""
        if name in self.list():
            return
        where = f"{key}: " if key else ""
        self.check_plugin(name, f"{where}{self.kind} '{name}'")
        known = [*self.list(), *self._plugins]
        raise ConfigError(f"{where}unknown {self.kind} '{name}'{nearest(name, known)}")

    def check_plugin(self, name: str, what: str) -> None:
        """Raise `ConfigError` naming the module to import where a plug-in registers `name`."""
        if name in self._plugins:
            module = self._plugins[name]
            raise ConfigError(
                f"{what} is registered by {module}; add run.import_modules: [{module}] (needs a "
                "checkout, no wheel holds it)"
            )

    def list(self) -> list[str]:
        """Return every known name, sorted."""
        return sorted({*self._targets, *self._extensions, *self._classes})


@functools.lru_cache(maxsize=1)
def _shipped() -> dict[str, dict[str, Target]]:
    """Return kind -> name -> class of this package."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {
        kind: {
            name: Target(row["class"], row.get("config"), row.get("defaults", {}))
            for name, row in rows.items()
        }
        for kind, rows in table.items()
    }


def import_module(name: str, where: str) -> ModuleType:
    """Import a module that a user names.

    What lies beside the package `lavis`, such as a checkout's `projects`, is found from any working
    directory, after all that is on the path already.

    Args:
        name: dotted name of the module.
        where: of the name, for the message.

    Raises:
        ConfigError: it cannot be imported.
    """
    beside = str(Path(__file__).resolve().parents[2])
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"{where}: cannot import {name}: {error}") from None


def load(path: str) -> Any:
    """Return the object that `package.module:name` stands for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


models = Registry("model", plugins={"quickstart": "projects.quickstart"})
datasets = Registry("dataset")
tasks = Registry("task")
processors = Registry("processor")
generators = Registry("generator", plugins={"openmoji": "projects.quickstart"})
scorers = Registry("scorer", plugins={"named": "projects.quickstart"})
llms = Registry("language-model backend")
verbalizers = Registry("verbalizer")
runners = Registry("runner")
lr_schedulers = Registry("lr schedule")
