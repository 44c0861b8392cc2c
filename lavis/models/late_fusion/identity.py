"""Start of the block at the language model's own predictions: fused logits = text-only logits.

The block reads `x = (h - b) / w` in place of h, where w and b are gain and shift of the language
model's last norm, so that its own last norm, a frozen copy, makes h of x again. In between, what
attention and MLP add to the residual stream starts at zero: by the gains of the norms behind them
(gemma 2 and 3), else by their output matrices. Learnt position tables start at zero.

That is exact but for the norm's epsilon, which counts where hidden states are as small as its root:
not in trained models.

(Measured on Gemma-3-270M: the block on h itself, started at random, learns nothing in 80 steps.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavis.common.errors import ConfigError
from lavis.models.base import freeze
from lavis.models.late_fusion.block import keys_of, rows_of
from lavis.models.late_fusion.families import (
    EXPERT_OUTPUTS,
    POST_NORMS,
    RESIDUAL_OUTPUTS,
    final_norm,
    submodule,
)

TOLERANCE = 2e-5  # of float32, relative to the largest; a random layer adds 1e-4 and more
PROBE = 64.0  # much larger than a norm's epsilon, small enough for half precision


class FusionInput(nn.Module):
    """What enters the block: `(h - shift) * scale` for text, `factor * u` for patches.

    Attributes:
        factor: on both, as released Gemma does; 1 else.
        is_affine: it started as identity; `scale` and `shift` exist, saved with the weights.
    """

    def __init__(self, width: int, *, factor: float = 1.0, is_affine: bool = False) -> None:
        super().__init__()
        self.factor, self.is_affine = factor, is_affine
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.register_buffer("scale", torch.ones(width) if is_affine else None)
        self.register_buffer("shift", torch.zeros(width) if is_affine else None)

    def text(self, hidden: Tensor) -> Tensor:
        """Return the block's input for hidden states `(..., H)`, float32."""
        hidden = hidden.float()
        if self.scale is not None and self.shift is not None:
            return (hidden - self.shift) * self.scale
        return hidden * self.factor

    def patches(self, projected: Tensor) -> Tensor:
        """Return the block's input for projected patches `(..., H)`."""
        return projected * self.factor


def norm_gain_and_shift(norm: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """Return w and b of a layer norm, or w of an RMS norm (`w` or `1 + w` in its code) and 0.

    Found by its outputs for +-1, +-1, ..., whose mean is 0 and whose deviation is 1.
    """
    weight = next(norm.parameters())
    probe = torch.ones(width, dtype=torch.float32, device=weight.device)
    probe[1::2] = -1
    with torch.no_grad():
        high = norm((PROBE * probe).to(weight.dtype)).float()
        low = norm((-PROBE * probe).to(weight.dtype)).float()
    return (high - low) / 2 * probe, (high + low) / 2


def start_as_identity(block: nn.Module, fusion_input: FusionInput, base: nn.Module) -> list[str]:
    """Make a new block hand the text through, and check that it does.

    Args:
        block: random, as built.
        fusion_input: its affine part is set.
        base: the language model's base model, whose last norm is copied.

    Returns:
        Names of the block's gains that start at zero.

    Raises:
        ConfigError: the family's layer is built in a way this does not know.
    """
    width: Any = fusion_input.scale.shape if fusion_input.scale is not None else None
    theirs = final_norm(base)
    known = theirs is not None and next(theirs[1].parameters()).shape == width
    copied = copy_final_norm(block, fusion_input, base) if known else None
    gains = _silence(block) if copied is not None else []
    if copied is None or not _is_identity(block, fusion_input):
        kind = block.config.model_type  # type: ignore[union-attr]
        raise ConfigError(
            f"model.fusion.init: the layer of '{kind}' cannot be started as identity; "
            "set model.fusion.init=random"
        )
    return gains


def copy_final_norm(block: nn.Module, fusion_input: FusionInput, base: nn.Module) -> str | None:
    """Copy the language model's last norm into the block, frozen; return its path, or None."""
    theirs, ours = final_norm(base), final_norm(block)
    if theirs is None or ours is None:
        return None
    ours[1].load_state_dict({k: v.float() for k, v in theirs[1].state_dict().items()})
    freeze(ours[1])
    assert fusion_input.scale is not None and fusion_input.shift is not None
    width = fusion_input.scale.shape[0]
    gain, shift = norm_gain_and_shift(ours[1], width)
    with torch.no_grad():  # where the gain is 0, h is the shift, whatever x is
        fusion_input.scale.copy_(torch.where(gain == 0, 0.0, 1 / gain))
        fusion_input.shift.copy_(shift)
    return ours[0]


def zero_started_gains(block: nn.Module) -> list[str]:
    """Return names of the gains that hold attention and MLP back in families with such norms."""
    names = [name for name, _ in block.named_modules()]
    for pair in POST_NORMS:
        norms = [name for name in names if name.rpartition(".")[2] in pair]
        if len({name.rpartition(".")[2] for name in norms}) == len(pair):
            return [f"{name}.weight" for name in norms]
    return []


@torch.no_grad()
def _silence(block: nn.Module) -> list[str]:
    """Let attention and MLP add nothing at first, and positions too."""
    gains = zero_started_gains(block)
    for name in gains:
        norm = submodule(block, name.removesuffix(".weight"))
        assert norm is not None
        weight: Tensor = norm.weight  # type: ignore[assignment]
        gain, _ = norm_gain_and_shift(norm, weight.shape[0])
        weight -= gain.to(weight.dtype)
    for name, module in block.named_modules():
        is_output = not gains and f".{name}".endswith(RESIDUAL_OUTPUTS)
        if is_output or isinstance(module, nn.Embedding):
            for weight in module.parameters(recurse=False):
                weight.zero_()
    for name, weight in block.named_parameters():
        if not gains and name.endswith(EXPERT_OUTPUTS):
            weight.zero_()
    return gains


@torch.no_grad()
def _is_identity(block: nn.Module, fusion_input: FusionInput) -> bool:
    """Run three random text rows behind two patches, and compare."""
    was_training = block.training
    block.eval()
    last_norm = final_norm(block)
    assert last_norm is not None and fusion_input.scale is not None
    device, width = fusion_input.scale.device, fusion_input.scale.shape[0]
    draw = torch.Generator().manual_seed(0)
    hidden = last_norm[1](PROBE * torch.randn(1, 3, width, generator=draw).to(device))
    patches = torch.randn(1, 2, width, generator=draw).to(device)
    rows = torch.cat([patches, fusion_input.text(hidden)], dim=1)
    positions = torch.arange(5, device=device)[None]
    keys = keys_of(block, rows, positions)
    visible = torch.ones(1, 5, 5, dtype=torch.bool, device=device).tril()
    fused = rows_of(block, rows, positions, keys, visible)[:, 2:]
    block.train(was_training)
    return bool((fused - hidden).abs().max() <= TOLERANCE * hidden.abs().max())
