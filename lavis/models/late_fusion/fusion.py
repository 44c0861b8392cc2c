"""Text, images and the block that lets one look at the other, without losses and generation.

Shapes: B texts, L tokens, K images of a text, N images of a batch, P patches of width D,
R positions, H width of hidden states, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis.common.errors import ConfigError
from lavis.models.base import BaseModel
from lavis.models.late_fusion.block import Keys, build_block, keys_of, rows_of
from lavis.models.late_fusion.config import LateFusionConfig, Layout
from lavis.models.late_fusion.families import (
    VERIFIED,
    family_of,
    first_position,
    input_factor,
    last_position,
)
from lavis.models.late_fusion.identity import FusionInput, start_as_identity
from lavis.models.late_fusion.language import (
    EncodedTexts,
    LanguageModel,
    SharedStarts,
    load_language_model,
    pick,
)
from lavis.models.late_fusion.verify import verify_family
from lavis.models.vision import VisionTower


class Projector(nn.Module):
    """Linear, exact GELU, linear: `(N, P, D)` -> `(N, P, H)`."""

    def __init__(self, vision_width: int, hidden_width: int, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(vision_width, hidden_width)
        self.gelu = nn.GELU()
        self.linear2 = nn.Linear(hidden_width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Return the projected patches, `(N, P, D)` -> `(N, P, H)`."""
        return self.linear2(self.gelu(self.linear1(features)))


@dataclass(frozen=True)
class ImageStates:
    """The block's input `(N, P, H)` of images, and their keys and values, whatever the text."""

    rows: Tensor
    keys: Keys


class FusionBase(BaseModel):
    """Frozen language model and tower, trained projector and block.

    Args:
        layout: what the checkpoint that will be loaded looks like.

    Attributes:
        vision_is_frozen: the tower's outputs may be cached.
    """

    def __init__(self, config: LateFusionConfig, layout: Layout | None = None) -> None:
        super().__init__(config)
        self.config: LateFusionConfig = config
        self.vision_is_frozen = True
        self.llm = load_language_model(config)
        self.language = LanguageModel(self.llm)
        text_config = self.language.config
        family = family_of(text_config)
        tower = VisionTower(config.vision) if config.vision.name is not None else None
        self.mm_model = tower
        width = config.vision.width or (tower.width if tower is not None else None)
        expansion = config.projector_expansion or family.projector_expansion
        hidden = layout.projector_width if layout else round(expansion * self.language.width)
        assert width is not None
        self.mm_proj = Projector(width, hidden, self.language.width)
        self._start_projector()
        affine = layout.is_affine if layout else config.fusion.init == "identity"
        bias = layout.mlp_bias if layout else bool(config.llama_mlp_bias)
        self.fusion_layer = build_block(
            text_config,
            intermediate_size=(layout and layout.inner_width) or config.fusion.intermediate_size,
            mlp_bias=bias,
        )
        self.fusion_input = FusionInput(
            self.language.width,
            factor=1.0 if affine else input_factor(self.llm),
            is_affine=affine,
        )
        if text_config.model_type not in VERIFIED:
            verify_family(self.language, self.llm, self.fusion_layer)
        if affine:
            start_as_identity(self.fusion_layer, self.fusion_input, self.language.base)
        merges = family.merges and config.gemma_layout == "merge"
        self._merged_token: int | None = text_config.bos_token_id if merges else None
        self._first = first_position(text_config)
        self._limit = last_position(self.language.base, text_config)
        self._fingerprint: str | None = None

    def _start_projector(self) -> None:
        std = getattr(self.language.config, "initializer_range", 0.02)
        for module in (self.mm_proj.linear1, self.mm_proj.linear2):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> FusionBase:
        """Set the mode of what is trained; the frozen parts stay as in evaluation."""
        super().train(mode)
        self.llm.eval()
        if self.mm_model is not None:
            self.mm_model.eval()
        return self

    # Text

    @property
    def fills_masks(self) -> bool:
        """Whether the language model fills masks (bert); a causal one predicts the next token."""
        return self.language.is_masked

    @property
    def vocabulary(self) -> int:
        """How many tokens the language model has vectors for, both to read and to predict."""
        table = self.llm.get_input_embeddings()  # type: ignore[operator]
        return min(table.weight.shape[0], self.language.vocab_size)

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        starts: SharedStarts | None = None,
    ) -> EncodedTexts:
        """Run the language model once; no gradients.

        Args:
            input_ids: `(B, L)`.
            attention_mask: `(B, L)`, 1 where tokens are, on either side (None: everywhere).
            starts: beginnings that texts share; where the model can, they run once.

        Raises:
            ConfigError: more tokens than the language model has positions for.
        """
        ids = input_ids.to(self.device)
        mask = self._mask(ids, attention_mask)
        self.check_length(ids.shape[1])
        with torch.no_grad():
            if starts is None or not self.language.branches:
                return self.text_states(ids, mask, self.language.hidden(ids, mask))
            return self.text_states(ids, mask, self.language.hidden_of_branches(ids, mask, starts))

    def text_states(self, input_ids: Tensor, mask: Tensor, hidden: Tensor) -> EncodedTexts:
        """Return states of texts whose hidden states `(B, L, H)` are known."""
        visible = mask
        if self._merged_token is not None:
            first = mask & (mask.cumsum(dim=1) == 1)
            visible = mask & ~(first & (input_ids == self._merged_token))
        return EncodedTexts(hidden, mask, visible)

    def _mask(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return torch.ones_like(ids, dtype=torch.bool)
        return mask.to(self.device).bool()

    def check_length(self, length: int) -> None:
        if self._limit is not None and length > self._limit:
            kind = self.language.config.model_type
            raise ConfigError(
                f"model.llm: {length} rows of patches and text, but this '{kind}' has "
                f"{self._limit} positions; cut the texts, or pool patches with model.vision.grid"
            )

    def longest_text(self, image_size: int | None = None) -> int | None:
        """Return how many tokens fit behind the patches of an image, None for any number.

        Args:
            image_size: edge of the images; without it the size is the tower's own, or unknown.

        Raises:
            ConfigError: the patches alone fill all positions.
        """
        if self._limit is None:
            return None
        patches = 0
        size = image_size or self.config.vision.image_size
        if self.mm_model is not None and size is not None:
            image = torch.zeros(1, 3, size, size, device=self.device)
            patches = self.encode_images(image).shape[1]
        if self._limit - patches < 2:
            raise ConfigError(
                f"model.vision: an image of {size} pixels becomes {patches} patches, and this "
                f"'{self.language.config.model_type}' has {self._limit} positions, which leaves "
                "none for a text; pool the patches with model.vision.grid, or use smaller images"
            )
        return self._limit - patches

    def texts_of(self, samples: Mapping[str, Any]) -> EncodedTexts:
        """Return states of the texts of samples."""
        ids = samples["input_ids"].to(self.device)
        hidden = samples.get("text_hidden")
        if hidden is None:
            return self.encode_text(ids, samples.get("attention_mask"))
        mask = self._mask(ids, samples.get("attention_mask"))
        return self.text_states(ids, mask, hidden.to(self.device))

    # Images

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Run the tower, `(N, 3, S, S)` -> `(N, P, D)` float32; no gradients."""
        if self.mm_model is None:
            raise ConfigError("model.vision.name is null: samples must bring vision_features")
        with torch.no_grad():
            return self.mm_model(pixel_values.to(self.device))

    encode_frozen = encode_images

    @property
    def vision_width(self) -> int:
        """D, width of a vision token."""
        return self.mm_proj.linear1.in_features

    def image_states(self, features: Tensor) -> ImageStates:
        """Return rows and keys of features `(N, P, D)`; `ConfigError` for another width."""
        expected = self.vision_width
        if features.shape[-1] != expected:
            raise ConfigError(
                f"vision features of width {features.shape[-1]}, but the projector reads "
                f"{expected}; use the tower it was trained with"
            )
        rows = self.fusion_input.patches(self.mm_proj(features.to(self.device).float()))
        places = torch.arange(rows.shape[1], device=rows.device) + self._first
        keys = keys_of(self.fusion_layer, rows, places.expand(len(rows), -1))
        return ImageStates(rows, keys)

    def images_of(
        self, samples: Mapping[str, Any], texts: int
    ) -> tuple[ImageStates | None, Tensor]:
        """Return states of the images of samples, and which each text has, `(B, K)`.

        Args:
            texts: B.

        Raises:
            ConfigError: `image_index` is needed to tell which text has which image.
        """
        index = samples.get("image_index")
        index = index.to(self.device) if index is not None else None
        features = samples.get("vision_features")
        if features is None:
            image = samples.get("pixel_values", samples.get("image"))
            if image is None or (index is not None and not index.shape[1]):
                return None, torch.zeros(texts, 0, dtype=torch.long, device=self.device)
            features = self.encode_images(image)
        if index is None:
            if len(features) != texts:
                raise ConfigError(
                    f"{len(features)} images for {texts} texts: say with image_index (texts, "
                    "images of a text) which text has which"
                )
            index = torch.arange(texts, device=self.device)[:, None]
        if not index.shape[1]:
            return None, index
        return self.image_states(features), index

    # Fusion

    def fuse(
        self,
        text: EncodedTexts,
        images: Tensor | ImageStates,
        image_index: Tensor,
        positions: Tensor | None = None,
        text_index: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states of text rows that saw one image each.

        Args:
            text: B texts.
            images: features `(N, P, D)`, or their states.
            image_index: `(B, K)` into N; what -1 (no image) gives has no meaning.
            positions: `(B, R)` rows of the text; -1 is the last patch, -P the first (None: all L).
            text_index: `(B,)` into `text`, where one text stands for several B (None: one each).

        Returns:
            `(B, K, R, H)` after the block's last norm. A row of a merged start token is the last
            patch's; a row of padding has no meaning.

        Example:
            >>> text = model.encode_text(input_ids)  # (2, 12)
            >>> index = torch.tensor([[0, 1], [2, -1]])  # the second text has one image
            >>> model.fuse(text, vision_features, index, text.last()[:, None]).shape
            torch.Size([2, 2, 1, 768])
        """
        states = self.image_states(images) if isinstance(images, Tensor) else images
        self.check_length(states.rows.shape[1] + text.mask.shape[1])
        rows = self.fusion_input.text(text.hidden)
        text_keys = keys_of(self.fusion_layer, rows, self.places(text.keys, states))
        if positions is None:
            length = text.mask.shape[1]
            positions = torch.arange(length, device=self.device).expand(len(image_index), -1)
        inputs = EncodedTexts(rows, text.mask, text.keys)
        positions = positions.to(self.device)
        return self.fuse_rows(inputs, text_keys, states, image_index, positions, text_index)

    def places(self, keys: Tensor, images: ImageStates) -> Tensor:
        """Return the block's positions of text rows, `(B, L)`: they follow the patches."""
        start = self._first + images.rows.shape[1]
        return start + (keys.long().cumsum(dim=1) - 1).clamp(min=0)

    def fuse_rows(
        self,
        text: EncodedTexts,
        text_keys: Keys,
        images: ImageStates,
        image_index: Tensor,
        positions: Tensor,
        text_index: Tensor | None = None,
    ) -> Tensor:
        """Return `fuse` of a text whose keys are known.

        Args:
            text: `hidden` holds the block's input of the last rows, at least of the requested ones.
            text_keys: of all L rows.
            positions: `(B, R)`.
            text_index: as in `fuse`.
        """
        of = torch.arange(len(positions), device=positions.device)
        of = of if text_index is None else text_index.to(positions.device)
        visible_keys = text.keys[of]
        length, num_rows = text.mask.shape[1], text.hidden.shape[1]
        count, patches = image_index.shape[1], images.rows.shape[1]
        index = image_index.clamp(min=0)
        inside = positions.clamp(min=0)
        merged = text.replaced[of].gather(1, inside) & (positions >= 0)
        positions = torch.where(merged, -1, positions)
        of_text = pick(text.hidden, inside - (length - num_rows), of)[:, None]  # (B, 1, R, H)
        patch = (positions + patches).clamp(0, patches - 1)  # (B, R)
        of_image = images.rows[index[..., None], patch[:, None]]  # (B, K, R, H)
        is_text = positions >= 0
        queries = torch.where(is_text[:, None, :, None], of_text.to(of_image.dtype), of_image)
        places = self.places(visible_keys, images).gather(1, inside)
        places = torch.where(is_text, places, patch + self._first)
        visible = self._visible(visible_keys, positions, patches)
        batch = torch.arange(len(positions), device=positions.device).repeat_interleave(count)
        joined = images.keys.select(index.flatten()).then(text_keys.select(of[batch]))
        arguments = (queries.flatten(0, 1), places[batch], joined, visible[batch])
        if self.config.use_grad_checkpoint and torch.is_grad_enabled():
            fused = checkpoint(rows_of, self.fusion_layer, *arguments, use_reentrant=False)
        else:
            fused = rows_of(self.fusion_layer, *arguments)
        return fused.unflatten(0, (len(positions), count))

    def _visible(self, keys: Tensor, positions: Tensor, patches: int) -> Tensor:
        """Return which of `[patches ; text]` the rows at `positions` see, `(B, R, P + L)` bool."""
        batch, length = keys.shape
        if self.language.is_masked:
            whole = torch.cat([keys.new_ones(batch, patches), keys], dim=1)
            return whole[:, None].expand(-1, positions.shape[1], -1)
        order = torch.arange(-patches, length, device=keys.device)
        causal = order <= positions[..., None]  # (B, R, P + L)
        return torch.cat([causal[..., :patches], causal[..., patches:] & keys[:, None]], dim=-1)

    def logits(self, hidden: Tensor, token_ids: Tensor | None = None) -> Tensor:
        """Return the frozen head's logits, `(..., H)` -> `(..., V)` or `(..., C)`, float32."""
        return self.language.logits(hidden, token_ids)
