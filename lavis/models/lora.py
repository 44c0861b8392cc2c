"""Low-rank adapters by peft: their options, and peft's settings; importing this loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT, FractionBelowOne
from lavis.common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoraOptions:
    """`model.lora`: low-rank adapters on the language model, by peft (extra `peft`).

    Attributes:
        rank, alpha, dropout: of the adapters; an update is scaled by alpha / rank.
        target_modules: names of the layers that get one (None: peft's choice for the language model
            of a BLIP-2; every linear layer of that of a vision-language model).
    """

    rank: PositiveInt = 8
    alpha: PositiveInt = 16
    dropout: FractionBelowOne = 0.05
    target_modules: list[str] | None = None


def lora_settings(
    options: LoraOptions, *, targets: Sequence[str] | None, task_type: str | None = None
) -> Any:
    """Return peft's `LoraConfig`.

    Args:
        targets: names of layers, whole or their ends.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("model.lora needs peft: pip install 'lavis-commonsense[peft]'") from None
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=None if targets is None else list(targets),
        task_type=task_type,  # type: ignore[arg-type]
    )
