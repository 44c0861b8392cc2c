"""Processors by name: images to tensors, token lists and strings to model text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def load_processor(name: str, cfg: Mapping[str, Any] | None = None) -> Any:
    """Build the registered processor `name` from its options (a config node without `name`).

    Raises:
        ConfigError: an unknown name or option, or an option's value out of range.
    """
    from lavis.common.registry import processors

    return processors.get(name).from_config(cfg)
