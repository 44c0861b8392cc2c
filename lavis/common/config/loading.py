"""From YAML files and `--options` to one checked, resolved configuration, before anything is built.

Merge order, later wins: default YAML of the model's arch and type, default YAML of each data set's
type, run YAML, `--options`. Lists are replaced, mappings are merged. Every section is then checked
against the dataclass of the thing it configures (see `lavis.common.registry`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lavis.common import registry
from lavis.common.config.architectures import is_switched, switch_arch, use_own_processors
from lavis.common.config.errors import ABSENT, FAILED, UNKNOWN, WRONG, Fault, Faults, check_section
from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.config.files import (
    contains,
    merge_options,
    parse_options,
    read_yaml,
    resolve,
    run_file,
)
from lavis.common.config.image_sizes import check_image_sizes
from lavis.common.config.renamed import present_options
from lavis.common.config.run import RunConfig, training_faults
from lavis.common.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

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
    cfg_path: str | Path,
    options: Sequence[str] | None = None,
    *,
    mode: Mode = "evaluate",
    to_train: bool = False,
    faults: Faults | None = None,
) -> Config:
    """Merge, resolve and check a run file.

    Args:
        options: `a.b=c` items, or alternating keys and values.
        mode: which splits are needed: `evaluate` reads `run.test_splits` only.
        to_train: also check what training needs, unless `run.evaluate`.
        faults: of the command's flags, reported with the rest.

    Raises:
        ConfigError: a line for each fault, unknown keys first, then wrong values, then missing
            files; each names the full key and what is valid.
    """
    return _Loader(cfg_path, options or [], faults or Faults()).load(mode, to_train)


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
    named = present_options({"model": named})["model"]
    node = OmegaConf.merge(default.get("model", {}), OmegaConf.create(named))
    tree = OmegaConf.create({"model": node})
    faults = Faults()
    resolved, unread = resolve(tree)
    faults.add(unread)
    cls = registry.models.config_class(arch)
    _drop_retired(resolved, cls)
    absent = [fault.key for fault in unread]
    checked, wrong = check_section(
        cls, resolved["model"], "model", source=lambda key: arch, absent=absent
    )
    faults.add(wrong)
    faults.check()
    preprocess = OmegaConf.to_container(default.get("preprocess", OmegaConf.create()), resolve=True)
    return checked, dict(preprocess)  # type: ignore[arg-type]


class _Loader:
    """One call of `load_config`: remembers which file each value came from, for error messages."""

    def __init__(self, cfg_path: str | Path, options: Sequence[str], faults: Faults) -> None:
        self.path = run_file(cfg_path)
        self.faults = faults
        self.file: Any = faults.attempt(read_yaml, self.path)
        if self.file is FAILED:
            faults.attempt(parse_options, options)
            faults.check()  # all other faults depend on the file
        self.options, self.user = merge_options(self.file, options, faults)

    def load(self, mode: Mode, to_train: bool) -> Config:
        self._check_roots()
        run = self.user.run
        modules = run.get("import_modules")
        for module in modules if isinstance(modules, ListConfig) else []:  # else a type fault
            where = self._at("run.import_modules")
            self.faults.attempt(registry.import_module, str(module), where)
        model, datasets = self._model(), self._datasets()
        self._use_own_processors(model, datasets)
        tree = OmegaConf.create({"model": model or self.user.model, "datasets": datasets})
        tree["run"] = run
        self._keep_used_splits(tree, mode)
        resolved, unread = resolve(tree, self.source)
        if model is None:  # its default YAML, which others refer to, is not known
            unread = [fault for fault in unread if "${model." not in fault.text]
        self.faults.add(unread)
        _drop_retired(resolved, model and registry.models.config_class(str(model.arch)))
        absent = [fault.key for fault in unread]
        config = self._checked(resolved, absent, to_train=to_train, has_model=model is not None)
        self.faults.check()
        assert config is not None
        return config

    def _check_roots(self) -> None:
        for key in list(self.user):
            if key not in ROOT_KEYS:
                hint = nearest(str(key), ROOT_KEYS)
                self.faults.add([Fault(UNKNOWN, f"{self._at(str(key))}: unknown section{hint}")])
        for key in ("model", "datasets", "run"):
            if not isinstance(self.user.get(key), DictConfig):
                text = f"{self.path}, {key}: missing section; a run file needs it"
                self.faults.add([Fault(WRONG, text)])
                self.user[key] = OmegaConf.create({})

    def _model(self) -> DictConfig | None:
        node = self.user.model
        if not node and self.file.get("model") is None:
            return None  # reported already
        arch = node.get("arch")
        if arch is None:
            names = ", ".join(registry.models.list())
            self.faults.add([Fault(WRONG, f"{self.path}, model.arch: missing; one of {names}")])
            return None
        where = self._at("model.arch")
        if self.faults.attempt(registry.models.check, str(arch), where) is FAILED:
            return None
        node = self._switched(node, str(arch))
        model_type = node.get("model_type")
        if model_type is None:
            types = ", ".join(registry.models.defaults(arch))
            text = f"{self.path}, model.model_type: missing; one of {types}"
            self.faults.add([Fault(WRONG, text)])
            return None
        return self._merged(
            registry.models, str(arch), model_type, "model_type", ("model",), "model", node
        )

    def _switched(self, node: DictConfig, arch: str) -> DictConfig:
        """Return the section without what only the run file's own arch has."""
        if not is_switched(self.file, self.options):
            return node
        known = {field.name for field in fields(registry.models.config_class(arch))}
        types = registry.models.defaults(arch)
        return switch_arch(self.file.model, self.options.model, known=known, types=types)

    def _use_own_processors(self, model: DictConfig | None, datasets: DictConfig) -> None:
        if model is None:
            return
        if getattr(registry.models.config_class(str(model.arch)), "own_processors", False):
            default = _default_yaml(
                "model", registry.models, str(model.arch), model.model_type, "model_type"
            )
            use_own_processors(default.preprocess, datasets, self.file, self.options)

    def _datasets(self) -> DictConfig:
        merged = OmegaConf.create({})
        for name in map(str, self.user.datasets):
            key = f"datasets.{name}"
            known = self.faults.attempt(registry.datasets.check, name, self._at(key), rank=UNKNOWN)
            if known is FAILED:
                continue
            node = self.user.datasets[name]
            if node is not None and not isinstance(node, DictConfig):
                text = f"{self._at(key)}: {node!r} found, expected a mapping"
                self.faults.add([Fault(WRONG, text)])
                continue
            node = OmegaConf.create({}) if node is None else node
            chosen = node.get("type", "default")
            whole = self._merged(
                registry.datasets, name, chosen, "type", ("datasets", name), key, node
            )
            if whole is not None:
                merged[name] = whole
        return merged

    def _merged(
        self,
        kind: registry.Registry,
        name: str,
        chosen: Any,
        what: str,
        place: tuple[str, ...],
        key: str,
        node: DictConfig,
    ) -> DictConfig | None:
        """Return a section over its default YAML, or None where that is none."""
        where = self._at(f"{key}.{what}")
        default: Any = self.faults.attempt(_default_yaml, where, kind, name, chosen, what)
        if default is FAILED:
            return None
        for part in place:
            default = default.get(part) or OmegaConf.create({})
        try:
            return OmegaConf.merge(default, node)  # type: ignore[return-value]
        except (TypeError, ValueError, OmegaConfBaseException) as error:
            reason = str(error).split("\n")[0]
            text = f"{self._at(key)}: does not fit the default YAML: {reason}"
            self.faults.add([Fault(WRONG, text)])
            return None

    def _keep_used_splits(self, tree: DictConfig, mode: Mode) -> None:
        """Drop annotations of splits this run does not read, so their files need not exist."""
        kinds = ["test"] if mode == "evaluate" else ["train", "valid", "test"]
        used: dict[Any, str] = {}
        for kind in kinds:
            splits = tree.run.get(f"{kind}_splits") or []
            if isinstance(splits, ListConfig):  # else its type is at fault, which is reported
                used |= {split: kind for split in splits}
        if mode == "evaluate" and not used:
            text = f"{self.path}, run.test_splits: empty; name a split, e.g. [test]"
            self.faults.add([] if tree.run.get("test_splits") else [Fault(WRONG, text)])
            return
        found: set[str] = set()
        for node in tree.datasets.values():
            build_info = node.get("build_info")
            is_node = isinstance(build_info, DictConfig)
            annotations = build_info.get("annotations") if is_node else None
            if not isinstance(annotations, DictConfig):
                continue
            found |= set(map(str, annotations))
            for split in [s for s in annotations if s not in used]:
                del annotations[split]
        for split, kind in used.items():
            if split not in found and len(tree.datasets) == len(self.user.datasets):
                hint = nearest(str(split), map(str, found))
                where = self._at(f"run.{kind}_splits")
                self.faults.add([Fault(WRONG, f"{where}: no data set has a split '{split}'{hint}")])

    def _checked(
        self, tree: dict[str, Any], absent: list[str], *, to_train: bool, has_model: bool
    ) -> Config | None:
        """Check each section by its class; None where anything is wrong."""

        def check(cls: Any, node: Any, key: str, names: Collection[str] = ()) -> Any:
            value, found = check_section(
                cls, node, key, source=self.source, names=names, absent=absent
            )
            self.faults.add(found)
            return value

        run = dict(tree["run"])
        task_class = self._task_class(run)
        task_names = {f.name for f in fields(task_class)} if task_class else set()
        task_node = {k: run.pop(k) for k in list(run) if k in task_names}
        if task_class is None:  # which keys are its own is not known
            own = {f.name for f in fields(RunConfig)}
            run = {k: v for k, v in run.items() if k in own}
            run.setdefault("task", "")
        task = check(task_class, task_node, "run") if task_class else None
        run_checked = check(RunConfig, run, "run", task_names)
        if to_train and not run.get("evaluate"):
            for name, text in training_faults(run):
                key = f"run.{name}"
                if key not in absent:
                    self.faults.add([Fault(WRONG, f"{self._at(key)}: {text}")])
        datasets = {
            name: check(registry.datasets.config_class(name), node, f"datasets.{name}")
            for name, node in tree["datasets"].items()
        }
        model = None
        if has_model:
            model_class = registry.models.config_class(tree["model"]["arch"])
            model = check(model_class, tree["model"], "model")
        self.faults.attempt(check_image_sizes, model, datasets)
        if self.faults:  # else it is reported where the data are opened
            self._check_start(run_checked, datasets)
            return None
        return Config(model=model, datasets=datasets, run=run_checked, task=task, tree=tree)

    def _check_start(self, run: Any, datasets: Mapping[str, Any]) -> None:
        if run is not None:
            self.faults.attempt(run.check_start)
        for name, config in datasets.items():
            build_info = getattr(config, "build_info", None)
            for split in getattr(build_info, "annotations", {}):
                self.faults.attempt(config.check_source, name, split, rank=ABSENT)

    def _task_class(self, run: dict[str, Any]) -> Any:
        """Return the class of the task's own keys, and check the names of registered parts."""
        kinds = [(registry.tasks, "task"), (registry.runners, "runner")]
        known = True
        for kind, name in [*kinds, (registry.lr_schedulers, "lr_sched")]:
            if run.get(name) is not None:
                where = self._at(f"run.{name}")
                failed = self.faults.attempt(kind.check, str(run[name]), where) is FAILED
                known = known and not (failed and name == "task")
        if run.get("task") is None:
            names = ", ".join(registry.tasks.list())
            self.faults.add([Fault(WRONG, f"{self.path}, run.task: missing; one of {names}")])
            return None
        return registry.tasks.config_class(str(run["task"])) if known else None

    def _at(self, key: str) -> str:
        return f"{self.source(key)}, {key}"

    def source(self, key: str) -> str:
        """Return where a key's value was written: `--options`, the run file or a default YAML."""
        if contains(self.options, key):
            return "--options"
        if contains(self.file, key):
            return self.path.name
        return "default YAML" if not key.startswith("run") else self.path.name


def _default_yaml(
    where: str, kind: registry.Registry, name: str, chosen: Any, what: str
) -> DictConfig:
    defaults = kind.defaults(name)
    if str(chosen) not in defaults:
        kind.check_plugin(str(chosen), f"{where}: {what} '{chosen}'")
        hint = nearest(str(chosen), defaults)
        raise ConfigError(f"{where}: '{chosen}' is not a {what} of {kind.kind} '{name}'{hint}")
    return read_yaml(CONFIG_ROOT / defaults[str(chosen)])


def _drop_retired(tree: dict[str, Any], model: Any) -> None:
    """Remove keys nothing reads, with one warning for all of them.

    Args:
        model: class of the section `model`, whose own keys stay; None where it is not known.
    """
    dropped = []
    own = {f"model.{field.name}" for field in fields(model)} if model else set()
    for key, advice in RETIRED.items():
        section, name = key.split(".")
        if key not in own and name in tree.get(section, {}):
            del tree[section][name]
            dropped.append(f"{key} ({advice})")
    run = tree.get("run", {})
    if run.get("runner") == "runner_iter" and run.pop("max_epoch", None) is not None:
        dropped.append("run.max_epoch (runner_iter counts run.max_iters)")
    if dropped:
        logger.warning("ignored, nothing reads them: %s", "; ".join(dropped))
