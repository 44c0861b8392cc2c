"""Checks that a family nobody has tested is computed as the library computes it."""

from __future__ import annotations

import torch
from torch import nn

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.block import keys_of, rows_of
from lavis.models.late_fusion.families import first_position
from lavis.models.late_fusion.language import LanguageModel

TOLERANCE = 1e-2  # relative; half-precision logits differ by less, a wrong scale by more


@torch.no_grad()
def verify_family(language: LanguageModel, llm: nn.Module, block: nn.Module) -> None:
    """Compare text logits with the library's, and the block with a plain pass, on five tokens.

    Raises:
        ConfigError: they differ, or the library's layer does not take what others take.
    """
    kind = language.config.model_type
    device = next(llm.parameters()).device
    ids = torch.arange(3, 8, device=device)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    expected = llm(input_ids=ids, attention_mask=mask.long()).logits.float()
    found = language.logits(language.hidden(ids, mask))
    if not _agree(found, expected):
        raise ConfigError(
            f"model.llm: a '{kind}' makes its logits in a way that is not known here; tested are "
            "gpt2, gemma 1 to 3, llama, mistral, opt, phi, qwen and bert"
        )
    rows = torch.randn(1, 5, language.width, generator=torch.Generator().manual_seed(0))
    places = torch.arange(5)[None] + first_position(language.config)
    causal = torch.ones(1, 5, 5, dtype=torch.bool)
    visible = causal if language.is_masked else causal.tril()
    was_training = block.training
    block.eval()
    try:
        plain = block(inputs_embeds=rows).last_hidden_state
        fused = rows_of(block, rows, places, keys_of(block, rows, places), visible)
    except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"model.llm: the layer of a '{kind}' cannot be used: {error}") from None
    finally:
        block.train(was_training)
    if not _agree(fused, plain):
        raise ConfigError(
            f"model.llm: the layer of a '{kind}' does not take positions and keys as others do "
            "(position biases?), so pictures cannot be fused with it"
        )


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
