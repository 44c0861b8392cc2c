"""The frozen language model: loading, hidden states, positions, logits.

Shapes: B texts, L tokens, H width of the hidden state before the head, V vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
)

from lavis.common.dist import target_device
from lavis.common.errors import ConfigError
from lavis.common.pretrained import build_from_config, load_pretrained, load_whole_model
from lavis.common.sharded import as_bytes, named_weights, whole
from lavis.models.base import DTYPES, freeze, in_parts
from lavis.models.late_fusion.cache import cache_argument, new_cache, read_tokens, why_no_branches
from lavis.models.late_fusion.config import LateFusionConfig
from lavis.models.late_fusion.families import (
    check_family,
    family_of,
    first_position,
    is_masked_lm,
    scale_logits,
    submodule,
)
from lavis.models.late_fusion.losses import LinearHead

logger = logging.getLogger(__name__)

SLICE_VALUES = 6_000_000  # logits at a time on a CPU: what the C library keeps, 32 MB, and no more
SLICE_ROWS = 2048
# Hidden values of a pass on a CPU: an MLP is four times as wide, and at 32 MB memory is always new.
PART_VALUES = 2**21


@dataclass(frozen=True)
class EncodedTexts:
    """States of texts in the language model.

    Attributes:
        hidden: `(B, L, H)`, after the last norm, before the head.
        mask: `(B, L)` bool, where tokens are.
        keys: `(B, L)` bool, rows the block may look at: `mask` without merged start tokens.
    """

    hidden: Tensor
    mask: Tensor
    keys: Tensor

    @property
    def replaced(self) -> Tensor:
        """`(B, L)` bool, start tokens in whose place the images are."""
        return self.mask & ~self.keys

    def last(self) -> Tensor:
        """Return the row of each text's last token, `(B,)`."""
        length = self.mask.shape[1]
        rows = torch.arange(length, device=self.mask.device)
        return (rows * self.mask).amax(dim=1)

    def previous(self) -> Tensor:
        """Return the row that predicts each row's token: the visible one before, or -1."""
        rows = torch.arange(self.mask.shape[1], device=self.mask.device)
        last_visible = torch.where(self.mask, rows, -1).cummax(dim=1).values
        return F.pad(last_visible[:, :-1], (1, 0), value=-1)


@dataclass(frozen=True)
class SharedStarts:
    """Which texts of a batch begin alike, so that their beginnings run once.

    Texts are `(B, L)`: columns up to `length` hold beginnings, padded at the left, the others what
    follows them, at least one token, padded at the right.

    Attributes:
        length: columns of beginnings.
        first: `(G,)` of each distinct beginning, a text that has it.
        of: `(B,)` of each text, its beginning, into G.
    """

    length: int
    first: Tensor
    of: Tensor


def pick(rows: Tensor, index: Tensor, of: Tensor | None = None) -> Tensor:
    """Return rows `(B, R, H)` of `(B, L, H)` at `(B, R)`; -1 gives the first.

    Args:
        of: `(B,)`, which of the texts each B is; `rows` is `(T, L, H)` then.
    """
    if of is not None:
        return rows[of[:, None], index.clamp(min=0)]
    return rows.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, rows.shape[-1]))


def load_language_model(config: LateFusionConfig) -> nn.Module:
    """Build the frozen language model; `ConfigError` if it or a package it needs is missing."""
    llm_config = load_pretrained(
        AutoConfig, config.llm, refusal=f"model.llm: cannot read the config of '{config.llm}'"
    )
    text_config = llm_config.get_text_config(decoder=True)
    auto = AutoModelForMaskedLM if is_masked_lm(text_config) else AutoModelForCausalLM
    try:
        if config.llm_weights == "config":
            llm = build_from_config(auto, llm_config, dtype=DTYPES[config.llm_dtype or "fp32"])
        else:
            options = quantization(config)
            dtype = DTYPES[config.llm_dtype] if config.llm_dtype else "auto"
            refusal = f"model.llm: cannot build '{config.llm}'"
            llm = load_whole_model(auto, config.llm, refusal=refusal, dtype=dtype, **options)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.llm: cannot build '{config.llm}': {error}") from None
    freeze(llm)
    return llm


def quantization(config: LateFusionConfig) -> dict[str, Any]:
    """Return the options of `from_pretrained` that keep matrices in 8 or 4 bits.

    Raises:
        ConfigError: bitsandbytes is not installed, or there is no CUDA device.
    """
    if config.quantize is None:
        return {}
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantize is '{config.quantize}' and bitsandbytes is not installed; "
            "pip install 'lavis-commonsense[quantized]', or set model.quantize=null"
        )
    if target_device().type != "cuda":
        raise ConfigError(
            f"model.quantize is '{config.quantize}', which needs a CUDA device, and the model is "
            "to run on a CPU; set model.quantize=null"
        )
    from transformers import BitsAndBytesConfig

    if config.quantize == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    dtype = DTYPES[config.llm_dtype or "bf16"]
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": nf4}


class LanguageModel:
    """Calls a frozen language model; a view that holds no weights and no state of its own.

    Attributes:
        config: the text part of its config.
        is_masked: it fills masks (bert) and looks both ways.
        own_head: path of the head that the table of families names.
        width: H, of the vectors its head reads (opt-350m: not `hidden_size`).
        branches: texts may continue one cache of a shared beginning; if not, the log says why.
    """

    def __init__(self, llm: nn.Module) -> None:
        self._llm = llm
        whole: Any = llm.config
        self.config = whole.get_text_config(decoder=True)
        self.is_masked = is_masked_lm(self.config)
        table = llm.get_output_embeddings()  # type: ignore[operator]
        if table is None:
            raise ConfigError(f"model.llm: a '{self.config.model_type}' has no output head")
        self.vocab_size, self.width = table.weight.shape
        check_family(self.config)
        own = family_of(self.config).head
        self.own_head: tuple[str, ...] = () if own is None else (own,)
        self._head: tuple[str, ...] = self.own_head
        accepted = inspect.signature(self.base.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._cache_argument = None if self.is_masked else cache_argument(self.base, self.config)
        reason = self._why_no_branches()
        self.branches = reason is None
        if reason and not self.is_masked:
            self._warn_of_branches(reason)

    def _why_no_branches(self) -> str | None:
        if self.is_masked:
            return "it looks both ways"
        if self._cache_argument is None:
            return "it has no cache of keys and values (no config.use_cache)"
        return why_no_branches(self.config)

    def _warn_of_branches(self, reason: str) -> None:
        logger.warning(
            "model.llm: beginnings that texts share run once for each text, as this '%s' cannot "
            "share them: %s",
            self.config.model_type,
            reason,
        )

    def forgo_cache(self, reason: str) -> None:
        """Compute everything anew from here on, as the family's cache cannot be used."""
        kind = self.config.model_type
        logger.warning("model.llm: each word of a '%s' is written from scratch: %s", kind, reason)
        if self.branches:
            self._warn_of_branches(reason)
        self._cache_argument, self.branches = None, False

    def use_head(self, *paths: str) -> bool:
        """Make logits by modules in turn, False if one is missing; none: the output embedding."""
        self._head = paths
        return all(isinstance(submodule(self._llm, path), nn.Module) for path in paths)

    def new_cache(self) -> Any:
        """Return an empty cache, or None where the family has none."""
        return None if self._cache_argument is None else new_cache(self.config)

    @property
    def base(self) -> nn.Module:
        """The model without its head; looked up anew, as a wrapper may take its place."""
        base: nn.Module = self._llm.base_model  # type: ignore[assignment]
        if base is self._llm:
            raise ConfigError(
                f"model.llm: {type(base).__name__} of this version of transformers does not say "
                "which part of it makes its hidden states (base_model_prefix)"
            )
        return base

    @property
    def head(self) -> nn.Module:
        """What makes logits of hidden states."""
        modules = [submodule(self._llm, path) for path in self._head]
        parts = [module for module in modules if module is not None]
        if not parts:
            return self._llm.get_output_embeddings()  # type: ignore[operator]
        return parts[0] if len(parts) == 1 else nn.Sequential(*parts)

    @property
    def changes_logits(self) -> bool:
        """Whether logits are more than a linear map of the hidden state."""
        capped = getattr(self.config, "final_logit_softcapping", None)
        return bool(capped) or bool(self._head)

    def positions(self, mask: Tensor) -> Tensor:
        """Return position ids `(B, L)`: visible tokens are counted from the family's first id."""
        return (mask.long().cumsum(dim=1) - 1).clamp(min=0) + first_position(self.config)

    def hidden(self, input_ids: Tensor, mask: Tensor, past: Any = None) -> Tensor:
        """Return hidden states of `input_ids`, `(B, n, H)`.

        Args:
            input_ids: `(B, n)`, the tokens that are not in `past`.
            mask: `(B, L)` over `past` and `input_ids`.
            past: a cache that is read and added to.
        """
        if past is not None:
            return self._hidden(input_ids, mask, past)
        texts, length = input_ids.shape
        parts = math.ceil(texts * length * self.width / PART_VALUES)
        most = math.ceil(texts / max(1, parts)) or 1
        return in_parts(self._hidden, input_ids, mask, module=self._llm, most=most)

    def _hidden(self, input_ids: Tensor, mask: Tensor, past: Any = None) -> Tensor:
        length = input_ids.shape[1]
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": mask.long()}
        if self._takes_positions:
            inputs["position_ids"] = self.positions(mask)[:, -length:]
        if self._cache_argument is not None:
            inputs["use_cache"] = past is not None
        if past is None:
            return self.base(**inputs).last_hidden_state
        assert self._cache_argument is not None
        inputs[self._cache_argument] = past
        hidden = self.base(**inputs).last_hidden_state
        if not read_tokens(past):
            raise ConfigError(
                f"model.llm: a '{self.config.model_type}' left its cache empty, so that what comes "
                "next would be computed without what was before: it cannot be used with this "
                "version of transformers"
            )
        return hidden

    def hidden_of_branches(self, input_ids: Tensor, mask: Tensor, starts: SharedStarts) -> Tensor:
        """Return `hidden` `(B, L, H)` of texts that share beginnings, each of which runs once.

        Args:
            input_ids, mask: `(B, L)`, laid out as `starts` says.
        """
        length, first, of = starts.length, starts.first.to(mask.device), starts.of.to(mask.device)
        past = self.new_cache()
        start_hidden = self.hidden(input_ids[first, :length], mask[first, :length], past)
        past.reorder_cache(of)
        rest = self.hidden(input_ids[:, length:], mask, past)
        return torch.cat([start_hidden[of], rest], dim=1)

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Return logits `(..., V)`, or `(..., C)` of the C `token_ids` only, float32."""
        head = self.head
        if token_ids is not None and isinstance(head, nn.Linear):
            bias = None if head.bias is None else head.bias[token_ids]
            hidden = hidden.to(head.weight.dtype)
            raw = F.linear(hidden, head.weight[token_ids], bias)
            return scale_logits(raw.float(), self.config)
        weight = next(head.parameters())
        dtype = weight.dtype if weight.is_floating_point() else hidden.dtype
        logits = scale_logits(head(hidden.to(dtype)).float(), self.config)
        return logits if token_ids is None else logits[..., token_ids]

    def linear_head(self, token_ids: Tensor | None = None) -> LinearHead | None:
        """Return the head's matrix and bias (or rows of some tokens); None if it is not linear."""
        head = self.head
        if not self.has_plain_head or self.changes_logits:
            return None
        assert isinstance(head, nn.Linear)
        one = torch.ones(())
        if scale_logits(one, self.config) != one:
            return None
        if token_ids is None:
            return head.weight, head.bias
        return head.weight[token_ids], None if head.bias is None else head.bias[token_ids]

    @property
    def has_plain_head(self) -> bool:
        """Return whether the head is one matrix, of which a part gives a part of the logits."""
        return isinstance(self.head, nn.Linear) and self.head.weight.is_floating_point()

    def requested_log_probs(self, hidden: Tensor, token_ids: Tensor) -> Tensor:
        """Return log-probabilities `(n, S, C)` of some tokens, float32.

        They are normalised over the vocabulary, which passes by in slices that all rows share: the
        head's matrix, larger than the logits of a few rows, is read once, and no `(n, V)` tensor
        exists. For a plain head only.

        Args:
            hidden: `(n, S, H)`.
            token_ids: `(n, S, C)`.
        """
        assert isinstance(self.head, nn.Linear)
        weight, bias = self.head.weight, self.head.bias
        shape, hidden = hidden.shape[:2], hidden.flatten(0, 1).to(weight.dtype)
        values = SLICE_VALUES if hidden.device.type == "cpu" else 16 * SLICE_VALUES
        outputs = []
        for rows, ids in zip(
            hidden.split(SLICE_ROWS), token_ids.flatten(0, 1).split(SLICE_ROWS), strict=True
        ):
            size = max(1, values // max(1, len(rows)))
            selected = torch.zeros(ids.shape, device=rows.device)
            total = torch.full((len(rows), 1), -torch.inf, device=rows.device)
            for start in range(0, len(weight), size):
                end = start + size
                raw = F.linear(rows, weight[start:end], None if bias is None else bias[start:end])
                logits = scale_logits(raw.float(), self.config)
                total = torch.logaddexp(total, logits.logsumexp(dim=-1, keepdim=True))
                inside = (ids >= start) & (ids < end)
                place = (ids - start).clamp(0, logits.shape[-1] - 1)
                selected = torch.where(inside, logits.gather(-1, place), selected)
            outputs.append(selected - total)
        return torch.cat(outputs).unflatten(0, shape)

    def fingerprint(self) -> str:
        """Return a hash of config and all weights (0.6 s/GB on a core; once, to keep states)."""
        digest = hashlib.blake2b(digest_size=32)
        digest.update(self.config.to_json_string(use_diff=False).encode())
        for name, value in named_weights(self._llm):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(as_bytes(whole(value.detach())))
        return digest.hexdigest()
