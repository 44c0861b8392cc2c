"""Checks that an untested family is computed as the library computes it.

Shapes: B texts, L tokens, T rows, H width.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.block import keys_of, rows_of, takes_keys
from lavis.models.late_fusion.families import HEADS, first_position, reason_of
from lavis.models.late_fusion.language import LanguageModel

logger = logging.getLogger(__name__)

TOLERANCE = 1e-2  # relative; half-precision logits differ by less, a wrong scale by more
EXACT = 1e-3  # of the block, which is float32
LENGTH = 5


@torch.no_grad()
def verify_family(language: LanguageModel, llm: nn.Module, block: nn.Module) -> None:
    """Compare text logits with the library's, and the block with a plain pass, on five tokens.

    Padding must change neither. Where a cache does not give what a pass over the whole text gives,
    the model goes on without one.

    Raises:
        ConfigError: they differ, or the library's layer does not take what others take.
    """
    kind = language.config.model_type
    device = next(llm.parameters()).device
    ids = torch.arange(3, 3 + 2 * LENGTH, device=device).view(2, LENGTH)
    ids = ids.clamp(max=language.vocab_size - 1)
    was_training = block.training
    block.eval()
    try:
        _check_logits(language, llm, ids)
        _check_padding(language, ids)
        _check_block(language, block)
    except ConfigError:
        raise
    except Exception as error:  # a layer may raise anything on unsupported input
        raise ConfigError(
            f"model.llm: a '{kind}' cannot be called as other language models are: "
            f"{reason_of(error)}"
        ) from None
    finally:
        block.train(was_training)
    _check_cache(language, ids)
    if not takes_keys(block):
        logger.warning(
            "model.llm: patches pass the block anew with each text, which is slower, as a layer of "
            "a '%s' takes no keys and values",
            kind,
        )


def _check_logits(language: LanguageModel, llm: nn.Module, ids: Tensor) -> None:
    """Find the head that makes the library's logits."""
    mask = torch.ones_like(ids, dtype=torch.bool)
    expected = llm(input_ids=ids, attention_mask=mask.long()).logits.float()
    hidden = language.hidden(ids, mask)
    for paths in (language.own_head, (), *HEADS):
        if not language.use_head(*paths):
            continue
        try:
            logits = language.logits(hidden)
        except (RuntimeError, TypeError, ValueError, AttributeError, StopIteration):
            continue  # a module that takes something else
        if logits.shape == expected.shape and _agree(logits, expected, TOLERANCE):
            return
    raise ConfigError(
        f"model.llm: a '{language.config.model_type}' makes its logits of its hidden states in a "
        "way that is not known here"
    )


def _check_padding(language: LanguageModel, ids: Tensor) -> None:
    mask = torch.ones_like(ids, dtype=torch.bool)
    expected = language.hidden(ids, mask)
    pad = getattr(language.config, "pad_token_id", None)
    filler = ids.new_full((len(ids), 2), pad if isinstance(pad, int) else 0)
    none = torch.zeros_like(filler, dtype=torch.bool)
    right = language.hidden(torch.cat([ids, filler], 1), torch.cat([mask, none], 1))[:, :LENGTH]
    left = language.hidden(torch.cat([filler, ids], 1), torch.cat([none, mask], 1))[:, 2:]
    for side, result in (("right", right), ("left", left)):
        if not _agree(result, expected, TOLERANCE):
            raise ConfigError(
                f"model.llm: a '{language.config.model_type}' reads the padding at the {side} of a "
                "text, so that its texts cannot be batched"
            )


def _check_block(language: LanguageModel, block: nn.Module) -> None:
    kind = language.config.model_type
    device = next(block.parameters()).device
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(1, LENGTH, language.width, generator=draw).to(device)
    places = torch.arange(LENGTH, device=device)[None] + first_position(language.config)
    causal = torch.ones(1, LENGTH, LENGTH, dtype=torch.bool, device=device)
    visible = causal if language.is_masked else causal.tril()
    plain = block(inputs_embeds=rows).last_hidden_state
    keys = keys_of(block, rows, places)
    # padding stands between patches and text: rows there, which none looks at, change nothing
    front = keys_of(block, rows[:, :2], places[:, :2])
    rest = keys_of(block, rows[:, 2:], places[:, 2:])
    padding = keys_of(block, rows[:, :3].flip(1), places[:, :3])
    unseen = torch.zeros_like(causal[..., :3])
    padded = torch.cat([visible[..., :2], unseen, visible[..., 2:]], dim=-1)
    for shown, seen in ((keys, visible), (front.then(padding).then(rest), padded)):
        if not _agree(rows_of(block, rows, places, shown, seen), plain, EXACT):
            raise ConfigError(
                f"model.llm: a layer of a '{kind}' does not take positions and keys as others do "
                "(it counts rows for itself), so images cannot be shown to it"
            )
    last = slice(LENGTH - 1, None)
    other = rows.clone()
    other[:, 0] = rows[:, 0].flip(-1) + 1
    changed = keys_of(block, other, places)
    again = rows_of(block, rows[:, last], places[:, last], changed, visible[:, last])
    if _agree(again, plain[:, last], 0.0):
        raise ConfigError(f"model.llm: a layer of a '{kind}' does not look at rows before its own")


def _check_cache(language: LanguageModel, ids: Tensor) -> None:
    """Try the cache as beams use it: rows change places, and one is taken twice."""
    cache: Any = None if language.is_masked else language.new_cache()
    if cache is None:
        return
    mask = torch.ones_like(ids, dtype=torch.bool)
    order = torch.tensor([1, 0, 0], device=ids.device)
    expected = language.hidden(ids[order], mask[order])[:, 3:]
    try:
        language.hidden(ids[:, :3], mask[:, :3], cache)
        cache.reorder_cache(order)
        # running states go on word by word; only keys of tokens take several at once
        steps = [(3, LENGTH)] if language.branches else [(at, at + 1) for at in range(3, LENGTH)]
        ids, mask = ids[order], mask[order]
        parts = [language.hidden(ids[:, at:to], mask[:, :to], cache) for at, to in steps]
        result = torch.cat(parts, dim=1)
    except Exception as error:  # of caches that hold something else
        language.forgo_cache(f"its cache cannot be used for beams ({reason_of(error)})")
        return
    if not _agree(result, expected, TOLERANCE):
        language.forgo_cache("with its cache it finds other numbers than without")


def _agree(result: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((result - expected).abs().max() <= tolerance * expected.abs().max())
