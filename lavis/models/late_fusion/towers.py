"""The frozen vision tower: any of transformers or timm, an image in, tokens out.

Shapes: N images, S edge in pixels, P tokens of width D.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel

from lavis.common.checkpoint import read_state_dict
from lavis.common.errors import ConfigError, nearest
from lavis.common.pretrained import build_from_config, load_pretrained
from lavis.models.base import CPU_IMAGES, freeze, in_parts
from lavis.models.blip2.config import VitConfig
from lavis.models.blip2.vision import FeatureMapTower
from lavis.models.late_fusion.config import VisionConfig

logger = logging.getLogger(__name__)

TIMM = "timm:"
CPU_VIT_IMAGES = 16  # ViT-B/32: 48 took 7 % longer, 4 took 15 % longer in smaller products


class VisionTower(nn.Module):
    """`(N, 3, S, S) -> (N, P, D)`, tokens of one layer; P may be pooled to a grid.

    Attributes:
        tower: the library's model.
        width: D.
    """

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
        """Return the tokens, float32."""
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
        given: dict[str, Any] = {"pixel_values": image}
        own = getattr(sizes, "image_size", None)
        if isinstance(own, int) and image.shape[-1] != own:
            given["interpolate_pos_encoding"] = True
        if self._last is not None:
            with _first_layers(self.tower, *self._last):
                tokens = self.tower(**given, output_hidden_states=True).hidden_states[-1]
        else:
            found = self.tower(**given, output_hidden_states=True)
            tokens = found.hidden_states[self.config.layer]
        if tokens.ndim == 4:  # a map (N, D, h, w)
            return tokens.flatten(2).transpose(1, 2)
        if not self.config.drop_class_token:
            return tokens
        patch = getattr(sizes, "patch_size", None)
        patches = (image.shape[-1] // patch) ** 2 if isinstance(patch, int) else tokens.shape[1] - 1
        return tokens[:, tokens.shape[1] - patches :]  # class and register tokens come first

    def _timm_tokens(self, image: Tensor) -> Tensor:
        found = self.tower.forward_intermediates(  # type: ignore[operator]
            image,
            indices=[self.config.layer],
            output_fmt="NLC",
            intermediates_only=True,
            return_prefix_tokens=not self.config.drop_class_token,
            stop_early=True,
        )[0]
        if isinstance(found, tuple):
            patches, prefix = found
            return torch.cat([prefix, patches], dim=1)
        return found

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

    None where there is no such list, or no layer behind, or where a trial says otherwise.
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
        given = {"pixel_values": trial, "output_hidden_states": True}
        whole = tower(**given).hidden_states[layer]
        with _first_layers(tower, stacks[0], count):
            found = tower(**given).hidden_states[-1]
    tower.train(was_training)
    if torch.equal(found, whole):
        return stacks[0], count
    logger.info("model.vision: all layers of the tower run, as a part of them gives other tokens")
    return None


@contextlib.contextmanager
def _first_layers(tower: nn.Module, stack: str, count: int) -> Iterator[None]:
    """Let a tower have its first layers only; its weights and their names stay as they are."""
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
    """Average a square of tokens `(N, g * g, D)` to `(N, grid * grid, D)`.

    Raises:
        ConfigError: the tokens form no square.
    """
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
    try:
        sizes = getattr(whole, "vision_config", whole)
        if config.weights == "pretrained":
            cls: Any = MODEL_MAPPING[type(sizes)]
            tower = load_pretrained(cls, config.name, refusal=refusal, config=sizes)
        else:
            tower = build_from_config(AutoModel, sizes)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.vision.name: cannot build '{config.name}': {error}") from None
    width = getattr(sizes, "hidden_size", None) or sizes.hidden_sizes[config.layer]
    return tower.float(), width


def _build_timm(config: VisionConfig) -> tuple[nn.Module, int]:
    name = (config.name or "").removeprefix(TIMM)
    import timm  # here: seconds to load, and few towers need it

    if not timm.is_model(name):
        hint = nearest(name, timm.list_models())
        raise ConfigError(f"model.vision.name: unknown timm model '{name}'{hint}")
    if config.out_indices is not None:
        if config.weights == "pretrained":
            raise ConfigError(
                "model.vision.weights: name a file with the weights of a feature-map tower"
            )
        vit = VitConfig(
            out_indices=config.out_indices, grid=config.grid or 8, input_size=config.input_size
        )
        maps = FeatureMapTower(name, vit)
        return maps, maps.num_features
    options: dict[str, Any] = {"img_size": config.image_size} if config.image_size else {}
    tower: Any = timm.create_model(
        name, pretrained=config.weights == "pretrained", num_classes=0, **options
    )
    return tower, tower.num_features
