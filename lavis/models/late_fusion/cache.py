"""The library's key/value cache: under which name a model takes it, and what it can hold.

transformers 5.24 renamed the argument `past_key_values` to `cache`; 5.40 drops the old name.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers import DynamicCache

from lavis.common.errors import ConfigError

NAMES = ("cache", "past_key_values")  # of transformers from 5.24 on, and before it
# Layers of a cache that hold keys and values of tokens, or nothing.
KEYS_OF_TOKENS = ("DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer")


def cache_argument(module: nn.Module, config: Any, *, must: bool = True) -> str | None:
    """Return the name under which a model of the library takes its cache, None where it has none.

    Whether it has one is what its config says: `use_cache` is there in families with a cache.

    Args:
        config: of its text part.
        must: no name is an error where the config says that there is a cache; encoders share
            configs with decoders that have one.

    Raises:
        ConfigError: the config says it has a cache, and `forward` takes none under a known name.
    """
    accepted = inspect.signature(module.forward).parameters
    argument = next((name for name in NAMES if name in accepted), None)
    if not hasattr(config, "use_cache"):
        return None  # what other arguments of that name hold is not the library's cache (xlm)
    if argument is None and must:
        raise ConfigError(
            f"model.llm: a '{config.model_type}' keeps what it has read (config.use_cache), but "
            f"takes it under neither name that is known here, {' or '.join(NAMES)}: "
            f"{type(module).__name__} of this version of transformers cannot be used"
        )
    return argument


def new_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a text config; `ConfigError` if the library has none for it."""
    try:
        return DynamicCache(config=config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"model.llm: transformers has no cache for a '{config.model_type}': {error!r}"
        ) from None


def why_no_branches(config: Any) -> str | None:
    """Return why texts cannot continue the cache of a beginning they share; None where they can.

    Keys and values of single tokens can be padded and masked. A state that runs over all tokens so
    far cannot, and the cache, which knows, has other layers for it.
    """
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    other = sorted(kind for kind in kinds if "attention" not in kind or "linear" in kind)
    try:
        held = {type(layer).__name__ for layer in new_cache(config).layers}
    except ConfigError as error:
        return str(error)
    other += sorted(held - set(KEYS_OF_TOKENS))
    return f"layers keep more than keys and values of tokens: {', '.join(other)}" if other else None


def read_tokens(cache: Any) -> int:
    """Return how many tokens a cache has seen; one of running states alone says 1 for any."""
    try:
        return int(cache.get_seq_length())
    except ValueError:  # no layer with keys: transformers 5.24 and later
        return int(cache.has_previous_state())
