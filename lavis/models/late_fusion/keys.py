"""Names of weights: ours, and those of vLMIG and LaMI files, which tell a model's layout.

| part | vLMIG, LaMI | ours |
| --- | --- | --- |
| language model | `transformer.`, `model.`, `bert.`, `lm_head.` ... | the same, behind `llm.` |
| vision tower | `mm_model.vision_model.` | `mm_model.tower.` |
| projector, block | `mm_proj.`, `fusion_layer.` | the same |
| a block that started as identity | - | `fusion_input.{scale,shift}` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lavis.common.checkpoint import plain_names
from lavis.common.errors import ConfigError
from lavis.models.late_fusion.families import UNUSED

TRAINED = ("mm_proj.", "fusion_layer.", "fusion_input.")
LLM, TOWER, CLIP = "llm.", "mm_model.tower.", "vision_model."
_THEIR_TOWER = "mm_model.vision_model."
# weight that tells the MLP's inner width: ending -> (dimension, divisor)
_INNER = {
    ".mlp.gate_proj.weight": (0, 1),
    ".mlp.gate_up_proj.weight": (0, 2),
    ".mlp.c_fc.weight": (1, 1),
    ".mlp.fc1.weight": (0, 1),
    ".fc1.weight": (0, 1),
    ".intermediate.dense.weight": (0, 1),
}
_BIASES = (".mlp.gate_proj.bias", ".mlp.up_proj.bias", ".mlp.down_proj.bias")


@dataclass(frozen=True)
class Layout:
    """What a file of trained weights says about the model it belongs to.

    Attributes:
        projector_width: inner width of the projector.
        vision_width: width of the vision features.
        inner_width: inner width of the block's MLP, None where no name tells it.
        mlp_bias: the MLP of a Llama block has biases.
        is_affine: the block started as identity.
    """

    projector_width: int
    vision_width: int
    inner_width: int | None
    mlp_bias: bool
    is_affine: bool


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Return the layout of weights under our names; None where they hold no projector."""
    first = state.get("mm_proj.linear1.weight")
    if first is None:
        return None
    block = {name: value for name, value in state.items() if name.startswith("fusion_layer.")}
    inner = None
    for ending, (dimension, divisor) in _INNER.items():
        found = [value for name, value in block.items() if name.endswith(ending)]
        if found and inner is None:
            inner = found[0].shape[dimension] // divisor
    return Layout(
        projector_width=first.shape[0],
        vision_width=first.shape[1],
        inner_width=inner,
        mlp_bias=any(name.endswith(".mlp.gate_proj.bias") for name in block),
        is_affine="fusion_input.scale" in state,
    )


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of any known file under our names; what is never used is left out."""
    native: dict[str, Tensor] = {}
    for name, value in plain_names(state, "the checkpoint").items():
        if name.startswith(UNUSED):
            continue
        if name.startswith(_THEIR_TOWER):
            name = TOWER + name.removeprefix(_THEIR_TOWER)
        elif not name.startswith((*TRAINED, LLM, "mm_model.")):
            name = LLM + name
        native[name] = value
    return native


def to_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under vLMIG's names."""
    released = {}
    for name, value in state.items():
        if name.startswith(TOWER):
            name = _THEIR_TOWER + name.removeprefix(TOWER).removeprefix(CLIP)
        released[name.removeprefix(LLM)] = value
    return released


def is_trained(name: str) -> bool:
    """Return whether a weight belongs to the small part that a checkpoint must hold."""
    return name.startswith(TRAINED)


def fit_to(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """Return weights under the names a built model has.

    `vision_model.` in names of the tower came and went in the library. vLMIG's Llama has MLP
    biases in the language model as well, all 0, as no published Llama has any.

    Raises:
        ConfigError: such a bias is not 0.
    """
    owned = set(own)
    nested = any(name.startswith(TOWER + CLIP) for name in owned)
    fitted = {}
    for name, value in state.items():
        if name.startswith(TOWER):
            rest = name.removeprefix(TOWER).removeprefix(CLIP)
            name = TOWER + (CLIP if nested else "") + rest
        if name not in owned and name.startswith(LLM) and name.endswith(_BIASES):
            if value.any():
                raise ConfigError(
                    f"{name} is not 0, but the MLP of model.llm has no biases; name the language "
                    "model that the checkpoint was trained with"
                )
            continue
        fitted[name] = value
    return fitted
