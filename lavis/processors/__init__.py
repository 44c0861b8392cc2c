"""Processors by name: images to tensors, token lists and strings to model text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def load_processor(name: str, cfg: Mapping[str, Any] | None = None) -> Any:
    """Build a registered processor; `ConfigError` for an unknown name, or a bad option or value."""
    from lavis.common.registry import processors

    return processors.get(name).from_config(cfg)
