"""The fusion block: one layer of the language model's family over `[patches ; text]`.

A block of one layer has no second layer that would read what the patches become, so patches only
give keys and values. These are computed once for a picture and once for a text, and only the rows
whose predictions are read become queries: the result is the one of the plain pass over the whole
sequence, exactly. The library's layer does all of it: keys and values are taken where it hands them
to its cache, and given back the same way.

Shapes: X sequences, R query rows, T keys, H width.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.cache_utils import Cache

from lavis.common.errors import ConfigError
from lavis.common.pretrained import build_from_config
from lavis.models.late_fusion.cache import cache_argument
from lavis.models.late_fusion.families import family_of, first_position


def build_block(
    text_config: Any, *, intermediate_size: int | None = None, mlp_bias: bool = False
) -> nn.Module:
    """Return the library's base model of one layer, random, float32, without token embedding.

    Args:
        text_config: the language model's; not changed.
        intermediate_size: inner width of the MLP (None: the language model's).
        mlp_bias: Llama with biases in its MLP.

    Raises:
        ConfigError: the language model has no attention.
    """
    depth = text_config.num_hidden_layers
    config = copy.deepcopy(text_config)
    config.num_hidden_layers = 1
    config.vocab_size = first_position(config) + 1  # rows of a table that is removed below
    if not first_position(config):
        config.pad_token_id = None
    kinds = getattr(config, "layer_types", None)
    if kinds and all("linear" in kind or "attention" not in kind for kind in kinds):
        raise ConfigError(
            f"model.llm: a '{config.model_type}' has no attention to see pictures with"
        )
    if kinds:
        config.layer_types = ["full_attention"]
    elif getattr(config, "sliding_window", None):
        config.sliding_window = None
    if intermediate_size is not None:
        setattr(config, family_of(config).inner, intermediate_size)
    if mlp_bias:
        config.mlp_bias = True
    block: Any = _from_config(config)
    block.set_input_embeddings(nn.Identity())
    if getattr(block, "pooler", None) is not None:
        block.pooler = None
    if config.model_type == "gpt2":  # released: as deep as the base model, in spite of one layer
        for name, weight in block.named_parameters():
            if name.endswith("c_proj.weight"):
                weight.data /= depth**0.5
    return block


def _from_config(config: Any) -> nn.Module:
    try:
        return build_from_config(AutoModel, config, dtype=torch.float32, attn_implementation="sdpa")
    except (ValueError, ImportError):  # gemma 2 caps attention, which sdpa cannot
        return build_from_config(
            AutoModel, config, dtype=torch.float32, attn_implementation="eager"
        )


@dataclass(frozen=True)
class Keys:
    """Keys and values of rows, `(X, heads, T, head width)` each, positions applied."""

    keys: Tensor
    values: Tensor

    def select(self, index: Tensor) -> Keys:
        """Return the sequences of `index` `(Y,)`."""
        return Keys(self.keys[index], self.values[index])

    def then(self, other: Keys) -> Keys:
        """Return these rows followed by others of the same sequences."""
        return Keys(
            torch.cat([self.keys, other.keys], dim=2),
            torch.cat([self.values, other.values], dim=2),
        )


class _Taken(Exception):
    """Leaves a layer once its keys are known."""


class _Exchange(Cache):
    """Stands in for a cache: takes the keys of the rows at hand, and may give others back."""

    def __init__(self, given: Keys | None = None, *, stop: bool = False) -> None:
        super().__init__(layers=[])
        self.given, self.stop = given, stop
        self.taken: Keys | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See `Cache.update`."""
        own = Keys(key_states, value_states)
        self.taken = own
        if self.stop:
            raise _Taken
        given = self.given or own
        return given.keys.to(key_states.dtype), given.values.to(value_states.dtype)

    def get_seq_length(self, *args: Any, **kwargs: Any) -> int:
        """Nothing is in front of the rows: their positions are given."""
        return 0


def keys_of(block: nn.Module, rows: Tensor, positions: Tensor) -> Keys:
    """Return keys and values of rows; attention and MLP do not run.

    Args:
        rows: `(X, T, H)`.
        positions: `(X, T)`.
    """
    exchange = _Exchange(stop=not _is_sharded(block))
    seen = torch.ones(*rows.shape[:2], rows.shape[1], dtype=torch.bool, device=rows.device)
    with contextlib.suppress(_Taken):
        _run(block, rows, positions, exchange, seen)
    assert exchange.taken is not None, "the library's layer did not hand its keys to the cache"
    return exchange.taken


def rows_of(
    block: nn.Module, rows: Tensor, positions: Tensor, keys: Keys, visible: Tensor
) -> Tensor:
    """Return what query rows become, `(X, R, H)`.

    Args:
        rows: `(X, R, H)`.
        positions: `(X, R)`.
        keys: all that may be seen, the rows' own keys too.
        visible: `(X, R, T)` bool, which keys each row sees; at least one.
    """
    return _run(block, rows, positions, _Exchange(keys), visible)


def _run(
    block: nn.Module, rows: Tensor, positions: Tensor, exchange: _Exchange, visible: Tensor
) -> Tensor:
    mask = visible[:, None]  # (X, 1, R, T)
    if block.config._attn_implementation == "eager":  # type: ignore[union-attr]
        hidden = torch.zeros((), dtype=rows.dtype, device=rows.device)
        mask = torch.where(mask, hidden, torch.finfo(rows.dtype).min)
    name = cache_argument(block)
    if name is None:
        kind = block.config.model_type  # type: ignore[union-attr]
        raise ConfigError(
            f"model.llm: the layer of a '{kind}' takes no cache of keys and values, through which "
            "pictures are shown to it"
        )
    given: dict[str, Any] = {name: exchange, "use_cache": False}
    return block(
        inputs_embeds=rows, attention_mask=mask, position_ids=positions, **given
    ).last_hidden_state


def _is_sharded(block: nn.Module) -> bool:
    """FSDP and DeepSpeed gather weights around a whole call of a layer: it must not be left."""
    kinds = (type(module).__name__ for module in block.modules())
    return any(kind.startswith(("FSDP", "FullySharded")) for kind in kinds) or any(
        hasattr(weight, "ds_id") for weight in block.parameters()
    )
