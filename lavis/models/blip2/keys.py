"""Names of weights: ours, LAVIS's (`.pth` files) and those of Hugging Face's BLIP-2 folders.

Ours are `state_dict()` names. LAVIS keeps the embeddings inside `Qformer.bert` and its CLIP tower
under OpenAI's names; Hugging Face has its own names for everything and one bias for q, k and v.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis.common.errors import ConfigError

WORDS = "qformer.embeddings.word_embeddings.weight"
TIED_WORDS = "Qformer.cls.predictions.decoder.weight"

# (ours, LAVIS); the first pair whose left or right side starts a name is used
_PREFIXES = (
    ("qformer.embeddings.", "Qformer.bert.embeddings."),
    ("qformer.model.layernorm.", "Qformer.bert.embeddings.LayerNorm."),
    ("qformer.model.encoder.", "Qformer.bert.encoder."),
    ("lm_head.bias", "Qformer.cls.predictions.bias"),
    ("lm_head.transform.", "Qformer.cls.predictions.transform."),
)
_LAVIS_FIRST = sorted(_PREFIXES, key=lambda pair: -len(pair[1]))

# (timm, OpenAI's CLIP), inside a CLIP tower
_CLIP = (
    (r"cls_token", "class_embedding"),
    (r"pos_embed", "positional_embedding"),
    (r"patch_embed.proj.weight", "conv1.weight"),
    (r"norm_pre.", "ln_pre."),
    (r"blocks.", "transformer.resblocks."),
    (r".norm1.", ".ln_1."),
    (r".norm2.", ".ln_2."),
    (r".attn.qkv.weight", ".attn.in_proj_weight"),
    (r".attn.qkv.bias", ".attn.in_proj_bias"),
    (r".attn.proj.", ".attn.out_proj."),
    (r".mlp.fc1.", ".mlp.c_fc."),
    (r".mlp.fc2.", ".mlp.c_proj."),
)

_CLIP_SHAPES = {
    "visual_encoder.class_embedding": 2,
    "visual_encoder.positional_embedding": 1,
}

# (ours, Hugging Face's); the first pair whose left or right side starts a name is used
_HF_PREFIXES = (
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    ("ln_vision.", "vision_model.post_layernorm."),
    ("qformer.embeddings.", "embeddings."),
    ("qformer.model.", "qformer."),
    ("vision_proj.", "vision_projection."),
    ("text_proj.", "text_projection."),
    ("llm_proj.", "language_projection."),
)
_HF_BLOCK = (  # inside a block of the tower
    (".attn.proj.", ".self_attn.projection."),
    (".attn.", ".self_attn."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
)


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of any known form under our names; unknown names stay as they are."""
    if any(name.startswith(("vision_model.", "qformer.encoder.")) for name in state):
        return _from_hugging_face(state)
    native = {_native_name(name): value for name, value in state.items()}
    if WORDS not in native and TIED_WORDS in state:  # files that dropped the frozen word table
        native[WORDS] = state[TIED_WORDS]
    if "visual_encoder.class_embedding" in native:
        tower = {k: v for k, v in native.items() if k.startswith("visual_encoder.")}
        native = {k: v for k, v in native.items() if k not in tower}
        tower = {k.removeprefix("visual_encoder."): v for k, v in tower.items()}
        native.update({f"visual_encoder.{k}": v for k, v in clip_to_timm(tower).items()})
    return native


def to_lavis(state: Mapping[str, Tensor], *, clip_tower: bool = False) -> dict[str, Tensor]:
    """Return our weights under LAVIS's names.

    Args:
        state: a state dict of ours, or a part of one.
        clip_tower: the tower is OpenAI's CLIP, which LAVIS keeps under OpenAI's names.
    """
    named = {lavis_name(k, clip_tower=clip_tower): v for k, v in state.items()}
    for name, drop in _CLIP_SHAPES.items():  # OpenAI's tables have no leading axes of size 1
        if name in named:
            named[name] = named[name].flatten(0, drop)
    return named


def lavis_name(name: str, *, clip_tower: bool = False) -> str:
    """Return LAVIS's name of one of our weights."""
    if clip_tower and name.startswith("visual_encoder."):
        rest = "." + name.removeprefix("visual_encoder.")
        for ours, theirs in _CLIP:
            if ours.startswith("."):
                rest = rest.replace(ours, theirs)
            elif rest.startswith("." + ours):
                rest = "." + theirs + rest[1 + len(ours) :]
        return f"visual_encoder{rest}"
    for ours, theirs in _PREFIXES:
        if name.startswith(ours):
            name = theirs + name[len(ours) :]
            break
    return name.replace("attention.attention.", "attention.self.")


def clip_to_timm(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a CLIP tower's weights (names without a prefix) under timm's names and shapes."""
    renamed = {}
    for name, value in tower.items():
        rest = "." + name
        for ours, theirs in _CLIP:
            if ours.startswith("."):
                rest = rest.replace(theirs, ours)
            elif rest.startswith("." + theirs):
                rest = "." + ours + rest[1 + len(theirs) :]
        renamed[rest[1:]] = value
    for name in ("cls_token", "pos_embed"):
        if name in renamed:
            renamed[name] = renamed[name].reshape(1, -1, renamed[name].shape[-1])
    return renamed


def layer_of(name: str, depth: int) -> int:
    """Return a weight's layer for layer-wise learning rates: 0 is the input, block k is k + 1."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    if name.startswith(("cls_token", "pos_embed", "patch_embed", "norm_pre", "reg_token")):
        return 0
    return depth + 1


def resize_position_table(
    table: Tensor, num_tokens: int, *, num_prefix: int = 1, align_corners: bool = False
) -> Tensor:
    """Resample a square position table bicubically, as BLIP-2 does (no antialiasing).

    Args:
        table: `(1, num_prefix + g * g, D)`.
        num_tokens: rows wanted, prefix included.
        num_prefix: leading rows (class token) that are kept.

    Returns:
        `(1, num_tokens, D)`, float32 where resampled.

    Raises:
        ConfigError: either grid is not square.
    """
    if table.shape[1] == num_tokens:
        return table
    old, new = (math.isqrt(max(n - num_prefix, 0)) for n in (table.shape[1], num_tokens))
    if old * old != table.shape[1] - num_prefix or new * new != num_tokens - num_prefix:
        raise ConfigError(
            f"cannot resample a position table of {table.shape[1]} rows to {num_tokens}: "
            "not square grids"
        )
    prefix, grid = table[:, :num_prefix].float(), table[:, num_prefix:].float()
    grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, D, g, g)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=align_corners)
    return torch.cat([prefix, grid.flatten(2).transpose(1, 2)], dim=1)


def _native_name(name: str) -> str:
    for ours, theirs in _LAVIS_FIRST:
        if name.startswith(theirs):
            name = ours + name[len(theirs) :]
            break
    if name.startswith("qformer."):
        name = name.replace("attention.self.", "attention.attention.")
    return name


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our weights under Hugging Face's names; q, k and v share a bias there."""
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith((".v_bias", ".k_bias")):
            continue
        if name.endswith(".q_bias"):
            stem = name.removesuffix("q_bias")
            other = state[f"{stem}v_bias"]
            name = f"{stem}qkv.bias"
            value = torch.cat([value, torch.zeros_like(value), other])
        named[_renamed(name, _HF_PREFIXES, _HF_BLOCK)] = value.float()
    return named


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes, block = (
        tuple((theirs, ours) for ours, theirs in table) for table in (_HF_PREFIXES, _HF_BLOCK)
    )
    native: dict[str, Tensor] = {}
    for name, value in state.items():
        name = _renamed(name, prefixes, block)
        if name.endswith(".attn.qkv.bias"):
            query, _, other = value.chunk(3)  # the key part is zero: the layer has no key bias
            native[name.replace("qkv.bias", "q_bias")] = query
            native[name.replace("qkv.bias", "v_bias")] = other
        else:
            native[name] = value
    return native


def _renamed(
    name: str, prefixes: Iterable[tuple[str, str]], block: Iterable[tuple[str, str]]
) -> str:
    for old, new in prefixes:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    if name.startswith(("vision_model.encoder.", "visual_encoder.blocks.")):
        for old, new in block:
            if old in name:
                return name.replace(old, new)
    return name
