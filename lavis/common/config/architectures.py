"""What a run file's other sections mean to the model that is chosen: its keys, its processors."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

logger = logging.getLogger(__name__)

DEFAULT_TYPE = "default"


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


def use_own_processors(preprocess: DictConfig, datasets: DictConfig) -> None:
    """Let every data set use the model's processors, for models that no others fit.

    A data set's own node of the same processor keeps its options.

    Args:
        preprocess: the section of the model's default YAML.
        datasets: sections by name, changed.
    """
    replaced = []
    for name in map(str, datasets):
        for place, own in _nodes(preprocess):
            node = OmegaConf.select(datasets[name], place)
            if node is None or node.get("name") != own.get("name"):
                OmegaConf.update(datasets[name], place, own, merge=False, force_add=True)
                replaced += [f"datasets.{name}.{place}"] if node is not None else []
    if replaced:
        logger.info("the model's own processors take the place of %s", ", ".join(replaced))


def _nodes(preprocess: DictConfig) -> Iterator[tuple[str, Any]]:
    for kind in ("vis_processor", "text_processor"):
        for side in ("train", "eval"):
            yield f"{kind}.{side}", preprocess[kind][side]
