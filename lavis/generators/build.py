"""From the section `run.images` of a run to a generator, its store and a scorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lavis.common import registry
from lavis.common.config.errors import explain
from lavis.common.dist import target_device
from lavis.common.errors import ConfigError
from lavis.common.storage.cache import Cache
from lavis.generators.base import Generator, ImageScorer
from lavis.generators.config import ImagesConfig
from lavis.generators.store import ImageStore


def generator_config(
    name: str, options: Mapping[str, Any] | None = None, *, key: str = "images.options"
) -> Any:
    """Return the checked dataclass of a generator's options.

    Raises:
        ConfigError: unknown generator or option, or a wrong value; `key` stands in the message.
    """
    cls = registry.generators.config_class(name)
    node = dict(options or {})
    try:
        return TypeAdapter(cls).validate_python(node)
    except ValidationError as error:
        where = f"generator '{name}'"
        raise ConfigError(explain(error, cls, node, key, source=lambda _: where)) from None


def build_generator(
    name: str, options: Mapping[str, Any] | None = None, *, device: str = "auto"
) -> Generator:
    """Return a generator by its registered name.

    Args:
        options: its own; `device` is handed on where it takes one and they name none.

    Raises:
        ConfigError: unknown generator or option, or a wrong value.
    """
    cls = registry.generators.config_class(name)
    chosen = dict(options or {})
    if "device" in getattr(cls, "__dataclass_fields__", {}):
        chosen.setdefault("device", device)
    return registry.generators.get(name).from_config(generator_config(name, chosen))


def placed(config: ImagesConfig) -> ImagesConfig:
    """Return the section with `device: auto` as what the run's models are built for."""
    if config.device != "auto":
        return config
    return replace(config, device="cuda" if target_device().type == "cuda" else "cpu")


def build_store(config: ImagesConfig) -> ImageStore:
    """Return the store of a run's images; `ConfigError` if the generator's options are wrong."""
    generator = build_generator(config.generator, config.options, device=config.device)
    cache = Cache(Path(config.cache_dir).expanduser())
    return ImageStore(cache, generator, size=config.stored_size, format=config.stored_format)


def build_scorer(config: ImagesConfig, generator: Generator) -> ImageScorer | None:
    """Return what weighs a run's images, or None.

    Raises:
        ConfigError: its model cannot be loaded, or it does not know what the generator makes.
    """
    if config.scorer is None:
        return None
    return registry.scorers.get(config.scorer).from_config(config, generator)
