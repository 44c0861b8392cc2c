"""Vision towers: images in, tokens out.

BLIP-2's are networks of timm (`build_vision_tower`), late fusion's are frozen ones of transformers
or timm (`VisionTower`); both may take the feature maps of a convolutional network as tokens.

Shapes: N images, S edge in pixels, T tokens of width D.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel

from lavis.common.checkpoint import read_state_dict
from lavis.common.errors import ConfigError, nearest
from lavis.common.pixels import CLIP_MEAN, CLIP_STD
from lavis.common.pretrained import build_from_config, load_pretrained
from lavis.models.base import CPU_IMAGES, freeze, in_parts
from lavis.models.blip2.config import VitConfig
from lavis.models.late_fusion.config import VisionConfig

logger = logging.getLogger(__name__)

_WEIGHTS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/"
TIMM = "timm:"
CPU_VIT_IMAGES = 16  # ViT-B/32: 48 took 7 % longer, 4 took 15 % longer in smaller products


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


class TokenTower(nn.Module):
    """Type of BLIP-2's towers, `(N, 3, S, S) -> (N, T, D)`; timm's have these attributes too.

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
) -> TokenTower:
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
        return FeatureMapTower(
            timm_name,
            vit.out_indices,
            vit.grid,
            input_size=vit.input_size,
            mean=vit.mean,
            std=vit.std,
        )
    sizes = {
        key: getattr(vit, key) for key in ("embed_dim", "num_heads", "mlp_ratio", "patch_size")
    }
    sizes["depth"] = vit.depth or (named.depth if named else None)
    options = {key: value for key, value in sizes.items() if value is not None}
    try:
        tower: Any = timm.create_model(
            timm_name,
            num_classes=0,
            global_pool="",
            img_size=image_size,
            drop_path_rate=drop_path_rate,
            **options,
        )
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigError(
            f"model.vit_model: timm cannot build '{timm_name}' with {options}: {error}; for a "
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


class FeatureMapTower(TokenTower):
    """Feature maps of a convolutional network as tokens: `(N, 3, S, S) -> (N, grid * grid, D)`.

    Every chosen map is averaged to `grid x grid`; D is the sum of their channels. Images arrive
    normalised with CLIP's mean and deviation and are converted to the network's own.
    """

    body: Any  # a network of timm
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        timm_name: str,
        out_indices: Sequence[int],
        grid: int,
        *,
        input_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        try:
            self.body = timm.create_model(
                timm_name, features_only=True, out_indices=tuple(out_indices)
            )
        except (RuntimeError, IndexError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"model.vit.out_indices: timm cannot give stages {list(out_indices)} "
                f"of '{timm_name}': {error}"
            ) from None
        self.grid = grid
        self.input_size = input_size
        self.num_features = sum(self.body.feature_info.channels())
        self.depth = 0
        own = self.body.pretrained_cfg or {}
        clip_mean, clip_std = torch.tensor([CLIP_MEAN, CLIP_STD]).view(2, 1, 3, 1, 1)
        means = (mean or own.get("mean") or CLIP_MEAN, std or own.get("std") or CLIP_STD)
        own_mean, own_std = torch.tensor(means).view(2, 1, 3, 1, 1)
        # ((x * clip_std + clip_mean) - mean) / std, as one scale and one shift
        self.register_buffer("scale", clip_std / own_std, persistent=False)
        self.register_buffer("shift", (clip_mean - own_mean) / own_std, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return tokens `(N, grid * grid, D)`, row by row over the grid."""
        if self.input_size is not None and image.shape[-1] != self.input_size:
            size = (self.input_size, self.input_size)
            image = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        maps = self.body(image * self.scale + self.shift)
        pooled = [F.adaptive_avg_pool2d(m, self.grid) for m in maps]  # (N, C, grid, grid)
        return torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)


class VisionTower(nn.Module):
    """`(N, 3, S, S) -> (N, T, D)`, tokens of one layer; T may be pooled to a grid; `width` is D."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        assert config.name is not None
        self.config = config
        self.is_timm = config.name.startswith(TIMM)
        self.tower, self.width = _build_timm(config) if self.is_timm else _build_library(config)
        if config.weights not in ("pretrained", "config"):
            self._read(config.weights)
        freeze(self)
        self._last = None if self.is_timm else _last_read(self.tower, config.layer)

    def forward(self, image: Tensor) -> Tensor:
        """Return the tokens of images `(N, 3, S, S)`, `(N, T, D)` float32."""
        convolves = isinstance(self.tower, FeatureMapTower)
        most = CPU_IMAGES if convolves else CPU_VIT_IMAGES
        return in_parts(self._tokens, image, module=self.tower, most=most)

    def _tokens(self, image: Tensor) -> Tensor:
        config = self.config
        if isinstance(self.tower, FeatureMapTower):
            return self.tower(image).float()
        tokens = self._timm_tokens(image) if self.is_timm else self._library_tokens(image)
        if config.grid is not None:
            tokens = pool_tokens(tokens, config.grid)
        return tokens.float()

    def _library_tokens(self, image: Tensor) -> Tensor:
        sizes = self.tower.config
        inputs: dict[str, Any] = {"pixel_values": image}
        own = getattr(sizes, "image_size", None)
        if isinstance(own, int) and image.shape[-1] != own:
            inputs["interpolate_pos_encoding"] = True
        if self._last is not None:
            with _first_layers(self.tower, *self._last):
                tokens = self.tower(**inputs, output_hidden_states=True).hidden_states[-1]
        else:
            result = self.tower(**inputs, output_hidden_states=True)
            tokens = result.hidden_states[self.config.layer]
        if tokens.ndim == 4:  # a map (N, D, h, w)
            return tokens.flatten(2).transpose(1, 2)
        if not self.config.drop_class_token:
            return tokens
        patch = getattr(sizes, "patch_size", None)
        patches = (image.shape[-1] // patch) ** 2 if isinstance(patch, int) else tokens.shape[1] - 1
        return tokens[:, tokens.shape[1] - patches :]  # class and register tokens come first

    def _timm_tokens(self, image: Tensor) -> Tensor:
        result = self.tower.forward_intermediates(  # type: ignore[operator]
            image,
            indices=[self.config.layer],
            output_fmt="NLC",
            intermediates_only=True,
            return_prefix_tokens=not self.config.drop_class_token,
            stop_early=True,
        )[0]
        if isinstance(result, tuple):
            patches, prefix = result
            return torch.cat([prefix, patches], dim=1)
        return result

    def _read(self, path: str) -> None:
        """Load a file of weights: the tower's own names, or those of a BLIP-2 checkpoint."""
        state = {k.removeprefix("visual_encoder."): v for k, v in read_state_dict(path).items()}
        own = self.tower.state_dict()
        if not any(name in own for name in state):
            state = {f"body.{name}": value for name, value in state.items()}
        missing = [name for name in own if name not in state and "num_batches" not in name]
        if missing:
            raise ConfigError(
                f"model.vision.weights: {path} lacks {len(missing)} weights of "
                f"'{self.config.name}', the first is {missing[0]}"
            )
        self.tower.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)


def _last_read(tower: nn.Module, layer: int) -> tuple[str, int] | None:
    """Return the tower's list of layers and how many of them `hidden_states[layer]` needs.

    None without such a list, or without layers behind, or where a trial gives other tokens.
    """
    sizes: Any = tower.config
    depth, size = getattr(sizes, "num_hidden_layers", None), getattr(sizes, "image_size", None)
    if not isinstance(depth, int) or not isinstance(size, int):
        return None
    count = layer + depth + 1 if layer < 0 else layer
    stacks = [
        name
        for name, module in tower.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    if len(stacks) != 1 or not 0 < count < depth:
        return None
    channels = getattr(sizes, "num_channels", 3)
    trial = torch.linspace(-1, 1, channels * size * size).view(1, channels, size, size)
    was_training = tower.training
    tower.eval()
    with torch.no_grad():
        inputs = {"pixel_values": trial, "output_hidden_states": True}
        whole = tower(**inputs).hidden_states[layer]
        with _first_layers(tower, stacks[0], count):
            result = tower(**inputs).hidden_states[-1]
    tower.train(was_training)
    if torch.equal(result, whole):
        return stacks[0], count
    logger.info("model.vision: all layers of the tower run, as a part of them gives other tokens")
    return None


@contextlib.contextmanager
def _first_layers(tower: nn.Module, stack: str, count: int) -> Iterator[None]:
    """Run only the first layers of a tower; its weights and their names stay as they are."""
    parent, _, name = stack.rpartition(".")
    owner = tower.get_submodule(parent)
    layers = tower.get_submodule(stack)
    assert isinstance(layers, nn.ModuleList)
    setattr(owner, name, layers[:count])
    try:
        yield
    finally:
        setattr(owner, name, layers)


def pool_tokens(tokens: Tensor, grid: int) -> Tensor:
    """Average tokens `(N, g * g, D)` to `(N, grid * grid, D)`; `ConfigError` if not square."""
    edge = math.isqrt(tokens.shape[1])
    if edge * edge != tokens.shape[1]:
        raise ConfigError(
            f"model.vision.grid: {tokens.shape[1]} tokens form no square; set "
            "model.vision.drop_class_token=true, or model.vision.grid=null"
        )
    maps = tokens.transpose(1, 2).unflatten(2, (edge, edge))
    return F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)


def _build_library(config: VisionConfig) -> tuple[nn.Module, int]:
    assert config.name is not None
    refusal = f"model.vision.name: cannot build '{config.name}'"
    whole = load_pretrained(AutoConfig, config.name, refusal=refusal)
    sizes = getattr(whole, "vision_config", whole)
    try:
        if config.weights == "pretrained":
            cls: Any = MODEL_MAPPING[type(sizes)]
            tower = load_pretrained(cls, config.name, refusal=refusal, config=sizes)
        else:
            tower = build_from_config(AutoModel, sizes)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{refusal}: {error}") from None
    width = getattr(sizes, "hidden_size", None) or sizes.hidden_sizes[config.layer]
    return tower.float(), width


def _build_timm(config: VisionConfig) -> tuple[nn.Module, int]:
    name = (config.name or "").removeprefix(TIMM)
    if not timm.is_model(name):
        hint = nearest(name, timm.list_models())
        raise ConfigError(f"model.vision.name: unknown timm model '{name}'{hint}")
    if config.out_indices is not None:
        if config.weights == "pretrained":
            raise ConfigError(
                "model.vision.weights: name a file with the weights of a feature-map tower"
            )
        maps = FeatureMapTower(
            name, config.out_indices, config.grid or 8, input_size=config.input_size
        )
        return maps, maps.num_features
    options: dict[str, Any] = {"img_size": config.image_size} if config.image_size else {}
    tower: Any = timm.create_model(
        name, pretrained=config.weights == "pretrained", num_classes=0, **options
    )
    return tower, tower.num_features
