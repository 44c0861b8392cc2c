"""The fusion block: one layer of the language model's family over `[patches ; text]`.

A block of one layer has no second layer that would read what the patches become, so patches only
give keys and values. These are computed once for an image and once for a text, and only the rows
whose predictions are read become queries: the result is the one of the plain pass over the whole
sequence, exactly. The library's layer does all of it: keys and values are taken where it hands them
to its cache, and given back the same way.

Shapes: X sequences, R query rows, T keys, H width.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel
from transformers.cache_utils import Cache

from lavis.common.errors import ConfigError
from lavis.common.pretrained import build_from_config
from lavis.models.late_fusion.cache import cache_argument
from lavis.models.late_fusion.families import ATTENTION, family_of, first_position, reason_of


def build_block(
    text_config: Any, *, intermediate_size: int | None = None, mlp_bias: bool = False
) -> nn.Module:
    """Return the library's base model of one layer, random, float32, without token embedding.

    Args:
        text_config: the language model's; not changed.
        intermediate_size: inner width of the MLP (None: the language model's).
        mlp_bias: Llama with biases in its MLP.

    Raises:
        ConfigError: the family has no layer that an image can be shown to on its own.
    """
    _check_widths(text_config)
    config = _attention_layer(text_config)
    if intermediate_size is not None:
        setattr(config, family_of(config).inner, intermediate_size)
    if mlp_bias:
        config.mlp_bias = True
    block: Any = _from_config(config)
    if "inputs_embeds" not in inspect.signature(block.forward).parameters:
        raise ConfigError(_unusable(config, "it takes words, and no vectors in their place"))
    try:
        block.set_input_embeddings(nn.Identity())
    except NotImplementedError:
        reason = "the library does not say where its words enter"
        raise ConfigError(_unusable(config, reason)) from None
    if getattr(block, "pooler", None) is not None:
        block.pooler = nn.Identity()  # some call it whatever it is
    if config.model_type == "gpt2":  # released: as deep as the base model, in spite of one layer
        depth = text_config.num_hidden_layers
        for name, weight in block.named_parameters():
            if name.endswith("c_proj.weight"):
                weight.data /= depth**0.5
    return block


def _check_widths(config: Any) -> None:
    narrow = getattr(config, "embedding_size", None) or getattr(
        config, "input_embedding_size", None
    )
    if narrow is not None and narrow != config.hidden_size:
        raise ConfigError(
            f"model.llm: words enter this '{config.model_type}' with {narrow} values and its "
            f"hidden states have {config.hidden_size}, so these cannot enter a layer of its kind"
        )


def _attention_layer(text_config: Any) -> Any:
    """Return a config of one layer of plain attention; `ConfigError` if the family has none."""
    kinds = list(dict.fromkeys(getattr(text_config, "layer_types", None) or ()))
    config = copy.deepcopy(text_config)
    try:
        config.num_hidden_layers = 1
        for name, value in (family_of(config).attention_layer or {}).items():
            setattr(config, name, value)
        plain = [kind for kind in ATTENTION if kind in kinds]
        if plain and not family_of(config).attention_layer:
            config.layer_types = plain[:1]
        elif not kinds and getattr(config, "sliding_window", None):
            _set(config, "sliding_window", None)
    except (AttributeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ConfigError(_unusable(config, reason_of(error))) from None
    if kinds and not plain:
        raise ConfigError(
            f"model.llm: a '{config.model_type}' has no layer of plain attention, through which "
            f"images could be shown to it (its layers: {', '.join(kinds)})"
        )
    return config


def _set(config: Any, name: str, value: Any) -> bool:
    """Set a field of a config, unless its class refuses the value."""
    before = getattr(config, name, None)
    try:
        setattr(config, name, value)
    except Exception:  # huggingface_hub has its own errors, by version
        if getattr(config, name, None) is not before:
            object.__setattr__(config, name, before)
        return False
    return True


def _unusable(config: Any, reason: str) -> str:
    return f"model.llm: a layer of a '{config.model_type}' cannot be used on its own: {reason}"


def _from_config(config: Any) -> nn.Module:
    """Build the block; its table of words, which is removed, as small as the family takes it."""
    first = first_position(config)
    tables = [(first + 1, config.pad_token_id if first else None), (first + 2, first)]
    refusal: Exception | None = None
    for rows, pad in tables:
        config.vocab_size = rows
        if not _set(config, "pad_token_id", pad):
            continue
        for attention in ("sdpa", "eager"):  # gemma 2 caps attention, which sdpa cannot
            try:
                return build_from_config(
                    AutoModel, config, dtype=torch.float32, attn_implementation=attention
                )
            except Exception as error:  # of any layer of any version of the library
                refusal = refusal or error
    assert refusal is not None
    raise ConfigError(_unusable(config, reason_of(refusal))) from None


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

    def __init__(self, keys: Keys | None = None, *, stop: bool = False) -> None:
        super().__init__(layers=[])
        self.keys, self.stop = keys, stop
        self.taken: Keys | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """See `Cache.update`."""
        own = Keys(key_states, value_states)
        self.taken = own
        if self.stop:
            raise _Taken
        keys = self.keys or own
        return keys.keys.to(key_states.dtype), keys.values.to(value_states.dtype)

    def get_seq_length(self, *args: Any, **kwargs: Any) -> int:
        """Nothing precedes the rows: their positions are passed in."""
        return 0


def takes_keys(block: nn.Module) -> bool:
    """Return whether a block takes keys and values; else it runs over all rows each time."""
    return cache_argument(block, block.config, must=False) is not None


def keys_of(block: nn.Module, rows: Tensor, positions: Tensor) -> Keys:
    """Return keys and values of rows; attention and MLP do not run.

    Of a block that takes none, rows and positions stand in their place.

    Args:
        rows: `(X, T, H)`.
        positions: `(X, T)`.
    """
    if not takes_keys(block):
        return Keys(rows[:, None], positions[:, None, :, None])
    exchange = _Exchange(stop=not _is_sharded(block))
    visible = torch.ones(*rows.shape[:2], rows.shape[1], dtype=torch.bool, device=rows.device)
    with contextlib.suppress(_Taken):
        _run(block, rows, positions, exchange, visible)
    if exchange.taken is None:
        config: Any = block.config
        raise ConfigError(_unusable(config, "it does not hand its keys and values to a cache"))
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
    if takes_keys(block):
        return _run(block, rows, positions, _Exchange(keys), visible)
    # all rows pass the layer, the query rows once more behind them, where none looks at them
    count, known = rows.shape[1], keys.keys.shape[2]
    whole = torch.cat([keys.keys[:, 0].to(rows.dtype), rows], dim=1)
    places = torch.cat([keys.values[:, 0, :, 0], positions], dim=1)
    mask = F.pad(visible, (0, count, known, 0))  # (X, T + R, T + R)
    mask[:, :known] = torch.eye(known, known + count, dtype=torch.bool, device=rows.device)
    return _run(block, whole, places, None, mask)[:, known:]


def _run(
    block: nn.Module, rows: Tensor, positions: Tensor, exchange: _Exchange | None, visible: Tensor
) -> Tensor:
    config: Any = block.config
    mask = visible[:, None]  # (X, 1, R, T)
    if config._attn_implementation == "eager":
        hidden = torch.zeros((), dtype=rows.dtype, device=rows.device)
        mask = torch.where(mask, hidden, torch.finfo(rows.dtype).min)
    options: dict[str, Any] = {"position_ids": positions}
    if exchange is not None:
        name = cache_argument(block, config)
        assert name is not None
        options |= {name: exchange, "use_cache": False}
    return block(inputs_embeds=rows, attention_mask=mask, **options).last_hidden_state


def _is_sharded(block: nn.Module) -> bool:
    """FSDP and DeepSpeed gather weights around a whole call of a layer: it must not be left."""
    kinds = (type(module).__name__ for module in block.modules())
    return any(kind.startswith(("FSDP", "FullySharded")) for kind in kinds) or any(
        hasattr(weight, "ds_id") for weight in block.parameters()
    )
