"""Checks that processors make images of the size that the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.common import registry
from lavis.common.errors import ConfigError


def check_image_sizes(model: Any, datasets: Mapping[str, Any]) -> None:
    """Compare each data set's image processor with the model's `tower_image_size`.

    Asked before weights are read, which may take minutes. Models that say nothing take any size.

    Args:
        model: section `model`, checked; None where it is wrong.
        datasets: name -> section, likewise.

    Raises:
        ConfigError: a line for each processor of another size.
    """
    wanted = getattr(model, "tower_image_size", None)
    if wanted is None:
        return
    faults = {}
    for name, node in datasets.items():
        build_info = getattr(node, "build_info", None)
        for split in getattr(build_info, "annotations", {}):
            processor = node.processor("vis", split)
            size = _size(processor)
            if size is not None and size != wanted:
                kind = "train" if split.startswith("train") else "eval"
                key = f"datasets.{name}.vis_processor.{kind}.image_size"
                faults[key] = (
                    f"{key} is {size}, but model.image_size is {wanted}; set both to one size, "
                    f'e.g. image_size: "${{model.image_size}}"'
                )
    if faults:
        raise ConfigError("\n".join(faults.values()))


def _size(node: dict[str, Any]) -> int | None:
    """Return the edge of a processor's images, None where it makes none of its own size."""
    if "image_size" in node and node["image_size"] is not None:
        return int(node["image_size"])
    return getattr(registry.processors.get(node["name"]), "default_size", None)
