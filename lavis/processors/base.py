"""What every processor shares: options checked by name, and a description that can be hashed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from lavis.common.errors import ConfigError, nearest
from lavis.common.registry import processors

P = TypeVar("P", bound="BaseProcessor")


class BaseProcessor:
    """A callable whose options are the arguments of its constructor.

    Attributes:
        config_defaults: defaults of `from_config` that differ from the constructor's.
        deterministic: equal inputs give equal outputs, whatever the random state.
        keeps_image: an image processor that is handed the image undrawn, with its regions, and
            gives a `lavis.processors.vlm.ShownImage`.
    """

    name: ClassVar[str] = "base"
    config_defaults: ClassVar[Mapping[str, Any]] = {}
    deterministic: ClassVar[bool] = True
    keeps_image: ClassVar[bool] = False

    @classmethod
    def from_config(cls: type[P], config: Mapping[str, Any] | None = None) -> P:
        """Build from a config node (`name` is skipped); `ConfigError` for a bad option or value."""
        options = {k: v for k, v in dict(config or {}).items() if k != "name"}
        valid = [p for p in inspect.signature(cls).parameters]
        for key in options:
            if key not in valid:
                raise ConfigError(
                    f"unknown option '{key}' of processor {cls.name}{nearest(key, valid)}"
                )
        return cls(**{**cls.config_defaults, **options})

    def describe(self) -> dict[str, Any]:
        """Return name and options, JSON-able: equal descriptions process alike."""
        return {"name": self.name, **{k: v for k, v in vars(self).items() if k[0] != "_"}}


@processors.register("base")
class Identity(BaseProcessor):
    """Hands its input back."""

    def __call__(self, item: Any, **_: Any) -> Any:
        return item


def check_number(processor: str, option: str, value: Any, *, low: float, high: float) -> None:
    """Raise `ConfigError` unless `value` is a number in [low, high]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ConfigError(f"{processor}.{option} is {value!r}; use a number from {low} to {high}")


def check_count(processor: str, option: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{processor}.{option} is {value!r}; use a whole number of 1 or more")
