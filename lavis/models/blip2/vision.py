"""Vision towers from timm, given as one module: image in, tokens out.

Shapes: P images, S edge in pixels, T tokens, D token width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.errors import ConfigError, nearest
from lavis.models.blip2.config import VitConfig

_WEIGHTS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class NamedTower:
    """A tower BLIP-2 knows by name: its penultimate block's tokens, without a final norm.

    Attributes:
        timm_name: the architecture in timm.
        depth: blocks kept; the published network has one more.
        url: its published weights.
        align_corners: how its position table is resampled for another image size.
    """

    timm_name: str
    depth: int
    url: str
    align_corners: bool = False


TOWERS = {
    "eva_clip_g": NamedTower("eva_giant_patch14_224", 39, _WEIGHTS + "eva_vit_g.pth"),
    "clip_L": NamedTower(
        "vit_large_patch14_clip_quickgelu_224", 23, _WEIGHTS + "clip_vit_L.pth", align_corners=True
    ),
}


class VisionTower(nn.Module):
    """Type of a tower, `(P, 3, S, S) -> (P, T, D)`; timm's own have these attributes as well.

    Attributes:
        num_features: D.
        depth: blocks.
        num_prefix_tokens: leading rows of the position table that are no part of the image.
    """

    num_features: int
    depth: int
    num_prefix_tokens: int


def build_vision_tower(
    name: str,
    image_size: int,
    vit: VitConfig,
    *,
    drop_path_rate: float = 0.0,
    use_grad_checkpoint: bool = False,
) -> VisionTower:
    """Build a tower with random weights.

    Args:
        name: `eva_clip_g`, `clip_L` or any timm model.
        image_size: S.
        vit: sizes that differ from the named tower's; `out_indices` asks for a feature-map tower.

    Returns:
        A network of timm, or a `FeatureMapTower`.

    Raises:
        ConfigError: timm has no such model, or sizes do not fit it.
    """
    named = TOWERS.get(name)
    timm_name = named.timm_name if named else name
    if not timm.is_model(timm_name):
        hint = nearest(name, [*TOWERS, *timm.list_models()])
        raise ConfigError(f"model.vit_model: unknown tower '{name}'{hint}")
    if vit.out_indices is not None:
        return FeatureMapTower(timm_name, vit)
    sizes = {
        key: getattr(vit, key) for key in ("embed_dim", "num_heads", "mlp_ratio", "patch_size")
    }
    sizes["depth"] = vit.depth or (named.depth if named else None)
    given = {key: value for key, value in sizes.items() if value is not None}
    try:
        tower: Any = timm.create_model(
            timm_name,
            num_classes=0,
            global_pool="",
            img_size=image_size,
            drop_path_rate=drop_path_rate,
            **given,
        )
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"model.vit_model: timm cannot build '{timm_name}' with {given}: {error}; for a "
            "convolutional network name the stages in model.vit.out_indices"
        ) from None
    if not hasattr(tower, "blocks") or getattr(tower, "pos_embed", None) is None:
        raise ConfigError(
            f"model.vit_model: '{name}' is not a vision transformer with a position table; for a "
            "convolutional network name the stages in model.vit.out_indices"
        )
    if named:
        tower.norm = nn.Identity()
    tower.set_grad_checkpointing(use_grad_checkpoint)
    tower.depth = len(tower.blocks)
    return tower


class FeatureMapTower(VisionTower):
    """Feature maps of a convolutional network as tokens: `(P, 3, S, S) -> (P, grid * grid, D)`.

    Every chosen map is averaged to `grid x grid`; D is the sum of their channels. Images arrive
    normalised with CLIP's mean and deviation and are converted to the network's own.
    """

    body: Any  # a network of timm
    scale: Tensor
    shift: Tensor

    def __init__(self, timm_name: str, vit: VitConfig) -> None:
        super().__init__()
        try:
            self.body = timm.create_model(
                timm_name, features_only=True, out_indices=tuple(vit.out_indices or ())
            )
        except (RuntimeError, IndexError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"model.vit.out_indices: timm cannot give stages {list(vit.out_indices or ())} "
                f"of '{timm_name}': {error}"
            ) from None
        self.grid = vit.grid
        self.input_size = vit.input_size
        self.num_features = sum(self.body.feature_info.channels())
        self.depth = 0
        own = self.body.pretrained_cfg or {}
        mean = torch.tensor(vit.mean or own.get("mean") or CLIP_MEAN)
        std = torch.tensor(vit.std or own.get("std") or CLIP_STD)
        clip_mean, clip_std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        # ((x * clip_std + clip_mean) - mean) / std, as one scale and one shift
        self.register_buffer("scale", (clip_std / std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", ((clip_mean - mean) / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens, row by row over the grid."""
        if self.input_size is not None and image.shape[-1] != self.input_size:
            size = (self.input_size, self.input_size)
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        maps = self.body(image * self.scale + self.shift)
        pooled = [F.adaptive_avg_pool2d(m, self.grid) for m in maps]  # (P, C, grid, grid)
        return torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)


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


def layer_of(name: str, depth: int) -> int:
    """Return a weight's layer for layer-wise learning rates: 0 is the input, block k is k + 1."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    if name.startswith(("cls_token", "pos_embed", "patch_embed", "norm_pre", "reg_token")):
        return 0
    return depth + 1
