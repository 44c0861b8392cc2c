"""What a run file's other sections mean to the model that is chosen: its keys, its processors."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

logger = logging.getLogger(__name__)

DEFAULT_TYPE = "default"


def is_switched(file: DictConfig, options: DictConfig) -> bool:
    """Return whether `--options` choose another `model.arch` than the run file names."""
    there, here = (_node(layer, "model").get("arch") for layer in (file, options))
    return here is not None and there not in (None, here)


def switch_arch(
    file: DictConfig, options: DictConfig, *, known: Collection[str], types: Collection[str]
) -> DictConfig:
    """Return section `model` where `--options` choose another `arch` than the run file.

    Keys of the file that the chosen model does not have are left out, and said; its `model_type`
    becomes `default` where the file's is none of the chosen model's.

    Args:
        file, options: section `model` of either.
        known: options of the chosen model.
        types: its default YAMLs.
    """
    dropped = [str(key) for key in file if key not in known and key not in options]
    if "model_type" not in options and str(file.get("model_type")) not in types:
        dropped += ["model_type"] if "model_type" in file else []
        if DEFAULT_TYPE in types:
            options = OmegaConf.merge({"model_type": DEFAULT_TYPE}, options)  # type: ignore[assignment]
    kept = OmegaConf.masked_copy(file, [str(key) for key in file if key not in dropped])
    if dropped:
        keys = ", ".join(f"model.{key}" for key in sorted(dropped))
        logger.warning("model.arch is %s: the run file's %s are left out", options.arch, keys)
    return OmegaConf.merge(kept, options)  # type: ignore[return-value]


def use_own_processors(
    preprocess: DictConfig, datasets: DictConfig, file: DictConfig, options: DictConfig
) -> None:
    """Let every data set use the model's processors, for models that no others fit.

    What is written for such a processor stays, what is written for the one in its place goes. A
    run file whose arch is not chosen means its own processors where it names none.

    Args:
        preprocess: the section of the model's default YAML.
        datasets: sections by name, changed.
        file, options: the run file and `--options`, whole.
    """
    replaced = []
    of_other_arch = is_switched(file, options)
    for name in map(str, datasets):
        for place, own in _nodes(preprocess):
            key = f"datasets.{name}.{place}"
            node, written = OmegaConf.select(datasets[name], place), _node(file, key)
            latest = _node(options, key)
            is_own = node is not None and node.get("name") == own.get("name")
            if is_own and "name" not in written and "name" not in latest:
                continue  # of the data set's default YAML
            result = own
            if written.get("name", None if of_other_arch else own.get("name")) == own.get("name"):
                result = OmegaConf.merge(result, written)
            if latest.get("name", own.get("name")) == own.get("name"):
                result = OmegaConf.merge(result, latest)
            OmegaConf.update(datasets[name], place, result, merge=False, force_add=True)
            replaced += [key] if node is not None and not is_own else []
    if replaced:
        logger.info("the model's own processors take the place of %s", ", ".join(replaced))


def _node(tree: DictConfig, key: str) -> DictConfig:
    """Return a layer's section, an empty one where it has none."""
    node: Any = tree
    for part in key.split("."):
        node = node.get(part) if isinstance(node, DictConfig) else None
    return node if isinstance(node, DictConfig) else OmegaConf.create({})


def _nodes(preprocess: DictConfig) -> Iterator[tuple[str, Any]]:
    for kind in ("vis_processor", "text_processor"):
        for side in ("train", "eval"):
            yield f"{kind}.{side}", preprocess[kind][side]
