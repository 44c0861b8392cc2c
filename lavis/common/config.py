"""From YAML files and `--options` to one checked, resolved configuration, before anything is built.

Merge order, later wins: default YAML of the model's arch and type, default YAML of each data set's
type, run YAML, `--options`. Lists are replaced, mappings are merged. Every section is then checked
against the dataclass of the thing it configures (see `lavis.common.registry`).
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from lavis.common import registry
from lavis.common.config_errors import explain
from lavis.common.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

# The `config=` of every configuration dataclass; no option may be NaN or infinite.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"
ROOT_KEYS = ("model", "datasets", "run", "preprocess")

# Keys that LAVIS run files carry and nothing here reads: accepted, with one warning.
RETIRED = {
    "run.wandb_enabled": "use run.trackers=[wandb]",
    "run.project_name": "name the run by run.output_dir",
    "run.run_name": "name the run by run.output_dir",
    "run.prompt": "the prompt is the text_processor's",
    "run.world_size": "the launcher sets it",
    "run.dist_url": "the launcher sets it",
    "run.distributed": "the launcher sets it",
    "run.use_dist_eval_sampler": "every row is evaluated exactly once",
    "model.prompt": "the prompt is the text_processor's",
}

Mode = Literal["train", "evaluate"]


def _must_exist(path: str) -> str:
    if not os.path.exists(os.path.expanduser(path)):
        raise ConfigError(f"no such file or folder: {path}")
    return path


ExistingPath = Annotated[str, AfterValidator(_must_exist)]
"""Type of a field that names a file or folder which must be there before the run starts."""


@plain_dataclass(frozen=True)
class Config:
    """A checked configuration.

    Attributes:
        model: dataclass of the model's arch.
        datasets: name -> dataclass of that data set.
        run: `RunConfig`.
        task: dataclass of the task's own keys in `run`.
        tree: the same as plain containers, interpolations resolved, defaults of the YAMLs merged.
    """

    model: Any
    datasets: dict[str, Any]
    run: Any
    task: Any
    tree: dict[str, Any]

    def to_yaml(self) -> str:
        """Return the resolved tree as YAML text."""
        return OmegaConf.to_yaml(OmegaConf.create(self.tree))


def load_config(
    cfg_path: str | Path, options: Sequence[str] | None = None, *, mode: Mode = "evaluate"
) -> Config:
    """Merge, resolve and check a run file.

    Args:
        cfg_path: the run YAML.
        options: `a.b=c` items, or alternating keys and values.
        mode: which splits are needed: `evaluate` reads `run.test_splits` only.

    Raises:
        ConfigError: a line for each problem, naming the full key and what is valid.
    """
    loader = _Loader(cfg_path, options or [])
    return loader.load(mode)


def load_model_config(
    arch: str, model_type: str, overrides: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Any]]:
    """Return the dataclass and the `preprocess` node of a model's default YAML.

    Args:
        arch: registered model name.
        model_type: one of the arch's default YAMLs.
        overrides: values of the `model` section that win over the YAML's.
    """
    default = _default_yaml("model", registry.models, arch, model_type, "model_type")
    named = {**(overrides or {}), "arch": arch, "model_type": model_type}
    node = OmegaConf.merge(default.get("model", {}), OmegaConf.create(named))
    tree = OmegaConf.create({"model": node})
    section = resolve(tree)["model"]
    _drop_retired({"model": section})
    checked = _check(registry.models.config_class(arch), section, "model", lambda key: arch)
    preprocess = OmegaConf.to_container(default.get("preprocess", OmegaConf.create()), resolve=True)
    return checked, dict(preprocess)  # type: ignore[arg-type]


class _Loader:
    """One call of `load_config`: remembers which file each value came from, for error messages."""

    def __init__(self, cfg_path: str | Path, options: Sequence[str]) -> None:
        self.path = Path(cfg_path)
        self.options = parse_options(options)
        self.file = read_yaml(self.path)
        self.user: Any = OmegaConf.merge(self.file, self.options)

    def load(self, mode: Mode) -> Config:
        self._check_roots()
        for module in self.user.run.get("import_modules") or []:
            importlib.import_module(module)
        tree = OmegaConf.create({"model": self._model(), "datasets": self._datasets()})
        tree["run"] = self.user.run
        self._keep_used_splits(tree, mode)
        resolved = resolve(tree)
        _drop_retired(resolved)
        return self._checked(resolved)

    def _check_roots(self) -> None:
        for key in self.user:
            if key not in ROOT_KEYS:
                hint = nearest(str(key), ROOT_KEYS)
                raise ConfigError(f"{self.source(str(key))}, {key}: unknown section{hint}")
        for key in ("model", "datasets", "run"):
            if not isinstance(self.user.get(key), DictConfig):
                raise ConfigError(f"{self.path}, {key}: missing section; a run file needs it")

    def _model(self) -> DictConfig:
        node = self.user.model
        arch = node.get("arch")
        if arch is None:
            names = ", ".join(registry.models.list())
            raise ConfigError(f"{self.path}, model.arch: missing; one of {names}")
        registry.models.check(str(arch), f"{self.source('model.arch')}, model.arch")
        model_type = node.get("model_type")
        if model_type is None:
            types = ", ".join(registry.models.defaults(arch))
            raise ConfigError(f"{self.path}, model.model_type: missing; one of {types}")
        where = f"{self.source('model.model_type')}, model.model_type"
        default = _default_yaml(where, registry.models, arch, model_type, "model_type")
        return OmegaConf.merge(default.get("model", {}), node)  # type: ignore[return-value]

    def _datasets(self) -> DictConfig:
        merged = OmegaConf.create({})
        for name in map(str, self.user.datasets):
            node = self.user.datasets[name]
            key = f"datasets.{name}"
            registry.datasets.check(name, f"{self.source(key)}, {key}")
            node = OmegaConf.create({}) if node is None else node
            chosen = node.get("type", "default")
            where = f"{self.source(f'{key}.type')}, {key}.type"
            default: Any = _default_yaml(where, registry.datasets, name, chosen, "type")
            defaults = default.get("datasets", {}).get(name, {})
            merged[name] = OmegaConf.merge(defaults, node)
        return merged  # type: ignore[return-value]

    def _keep_used_splits(self, tree: DictConfig, mode: Mode) -> None:
        """Drop annotations of splits this run does not read, so their files need not exist."""
        kinds = ["test"] if mode == "evaluate" else ["train", "valid", "test"]
        used = {s: kind for kind in kinds for s in tree.run.get(f"{kind}_splits") or []}
        if mode == "evaluate" and not used:
            raise ConfigError(f"{self.path}, run.test_splits: empty; name a split, e.g. [test]")
        found: set[str] = set()
        for node in tree.datasets.values():
            annotations = (node.get("build_info") or {}).get("annotations") or {}
            found |= set(annotations)
            for split in [s for s in annotations if s not in used]:
                del annotations[split]
        for split, kind in used.items():
            if split not in found:
                key = f"run.{kind}_splits"
                hint = nearest(split, map(str, found))
                raise ConfigError(
                    f"{self.source(key)}, {key}: no data set has a split '{split}'{hint}"
                )

    def _checked(self, tree: dict[str, Any]) -> Config:
        from lavis.common.run_config import RunConfig  # needs STRICT of this module

        problems: list[str] = []

        def check(cls: Any, node: Any, key: str) -> Any:
            try:
                return _check(cls, node, key, self.source)
            except ConfigError as error:
                problems.append(str(error))
                return None

        run = dict(tree["run"])
        for kind, name in ((registry.tasks, "task"), (registry.runners, "runner")):
            if run.get(name) is not None:
                kind.check(str(run[name]), f"{self.source(f'run.{name}')}, run.{name}")
        if run.get("lr_sched") is not None:
            where = f"{self.source('run.lr_sched')}, run.lr_sched"
            registry.lr_schedulers.check(str(run["lr_sched"]), where)
        if run.get("task") is None:
            names = ", ".join(registry.tasks.list())
            raise ConfigError(f"{self.path}, run.task: missing; one of {names}")
        task_class = registry.tasks.config_class(str(run["task"]))
        task_names = {f.name for f in fields(task_class)}
        task_node = {k: run.pop(k) for k in list(run) if k in task_names}
        task = check(task_class, task_node, "run")
        run_checked = check(_WithNames(RunConfig, task_names), run, "run")
        datasets = {
            name: check(registry.datasets.config_class(name), node, f"datasets.{name}")
            for name, node in tree["datasets"].items()
        }
        model_class = registry.models.config_class(tree["model"]["arch"])
        model = check(model_class, tree["model"], "model")
        if problems:
            raise ConfigError("\n".join(problems))
        return Config(model=model, datasets=datasets, run=run_checked, task=task, tree=tree)

    def source(self, key: str) -> str:
        """Return where a key's value was written: `--options`, the run file or a default YAML."""
        if contains(self.options, key):
            return "--options"
        if contains(self.file, key):
            return self.path.name
        return "default YAML" if not key.startswith("run") else self.path.name


@plain_dataclass(frozen=True)
class _WithNames:
    """A dataclass whose unknown-key hint also lists names that are valid beside it."""

    cls: Any
    names: set[str]


def _check(cls: Any, node: Any, key: str, source: Any) -> Any:
    extra: set[str] = set()
    if isinstance(cls, _WithNames):
        cls, extra = cls.cls, cls.names
    try:
        return TypeAdapter(cls).validate_python(node)
    except ValidationError as error:
        raise ConfigError(explain(error, cls, node, key, source=source, names=extra)) from None


def read_yaml(path: Path) -> DictConfig:
    """Return a file's mapping; raises `ConfigError` where there is no file or no mapping."""
    if not path.is_file():
        raise ConfigError(f"no such config file: {path}")
    try:
        node = OmegaConf.load(path)
    except Exception as error:  # YAML errors come as several unrelated types
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{path}: a mapping was expected at the top")
    return node


def _default_yaml(
    where: str, kind: registry.Registry, name: str, chosen: Any, what: str
) -> DictConfig:
    defaults = kind.defaults(name)
    if str(chosen) not in defaults:
        hint = nearest(str(chosen), defaults)
        raise ConfigError(f"{where}: '{chosen}' is not a {what} of {kind.kind} '{name}'{hint}")
    return read_yaml(CONFIG_ROOT / defaults[str(chosen)])


def parse_options(options: Sequence[str]) -> DictConfig:
    """Read `a.b=c ...` or alternating keys and values, values typed as in YAML."""
    if not options:
        return OmegaConf.create({})
    items = list(options)
    if "=" not in items[0]:
        if len(items) % 2:
            raise ConfigError(f"--options: {items[-1]!r} has no value; write key=value")
        items = [f"{k}={v}" for k, v in zip(items[::2], items[1::2], strict=True)]
    for item in items:
        if "=" not in item:
            raise ConfigError(f"--options: {item!r} has no value; write key=value")
    try:
        return OmegaConf.from_dotlist(items)
    except Exception as error:  # YAML and grammar errors come as several unrelated types
        raise ConfigError(f"--options: {' '.join(str(error).split())}") from None


def resolve(tree: DictConfig) -> dict[str, Any]:
    """Return plain containers; an interpolation that cannot be resolved is named by its key."""
    for key, raw in _interpolations(tree, ""):
        try:
            OmegaConf.select(tree, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            reason = str(error).split("\n")[0]
            raise ConfigError(
                f"{key}: cannot resolve {raw!r} ({reason}); set it, or give --options {key}=..."
            ) from None
    container = OmegaConf.to_container(tree, resolve=True)
    return container  # type: ignore[return-value]


def _interpolations(node: Any, prefix: str) -> list[tuple[str, str]]:
    """Return `(full key, raw text)` of every interpolated value."""
    raw = OmegaConf.to_container(node, resolve=False)
    found: list[tuple[str, str]] = []

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            for position, item in enumerate(value):
                walk(item, f"{key}[{position}]")
        elif isinstance(value, str) and "${" in value:
            found.append((key, value))

    walk(raw, prefix)
    return found


def _drop_retired(tree: dict[str, Any]) -> None:
    """Remove keys nothing reads, with one warning for all of them."""
    dropped = []
    for key, advice in RETIRED.items():
        section, name = key.split(".")
        if name in tree.get(section, {}):
            del tree[section][name]
            dropped.append(f"{key} ({advice})")
    run = tree.get("run", {})
    if run.get("runner") == "runner_iter" and run.pop("max_epoch", None) is not None:
        dropped.append("run.max_epoch (runner_iter counts run.max_iters)")
    if dropped:
        logger.warning("ignored, nothing reads them: %s", "; ".join(dropped))


def contains(node: DictConfig, key: str) -> bool:
    """Return whether a dotted key has a value in a tree."""
    current: Any = OmegaConf.to_container(node, resolve=False)  # an interpolation stays a text
    for part in key.split("."):
        if not isinstance(current, dict) or part not in current:
            return False
        current = current[part]
    return True
