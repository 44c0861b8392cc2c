"""Late fusion: a frozen language model, and one trained block that lets its text see pictures.

Shapes: B texts, L tokens, K pictures of a text, N pictures of a batch, P patches of width D,
R positions, H width of hidden states, V vocabulary, C candidate tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis.common.checkpoint import LoadReport, read_state_dict
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.base import BaseModel, group_parameters
from lavis.models.late_fusion import keys as names
from lavis.models.late_fusion.block import Keys, build_block, keys_of, rows_of
from lavis.models.late_fusion.config import LateFusionConfig
from lavis.models.late_fusion.export import read_config, save_pretrained
from lavis.models.late_fusion.families import (
    family_of,
    first_position,
    input_factor,
    last_position,
)
from lavis.models.late_fusion.generation import Generation, generate
from lavis.models.late_fusion.identity import FusionInput, start_as_identity, zero_started_gains
from lavis.models.late_fusion.keys import Layout
from lavis.models.late_fusion.language import LanguageModel, TextStates, load_language_model
from lavis.models.late_fusion.mixing import Mixing
from lavis.models.late_fusion.scoring import fusion_loss, pick, predict_columns
from lavis.models.late_fusion.towers import VisionTower


class Projector(nn.Module):
    """Linear, exact GELU, linear: `(N, P, D)` -> `(N, P, H)`."""

    def __init__(self, vision_width: int, hidden_width: int, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(vision_width, hidden_width)
        self.gelu = nn.GELU()
        self.linear2 = nn.Linear(hidden_width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Return the projected patches."""
        return self.linear2(self.gelu(self.linear1(features)))


@dataclass(frozen=True)
class PictureStates:
    """What the block makes of pictures, whatever the text.

    Attributes:
        rows: `(N, P, H)`, the block's input.
        keys: their keys and values.
    """

    rows: Tensor
    keys: Keys


@models.register("late_fusion")
class LateFusion(BaseModel):
    """Frozen `AutoModelForCausalLM` (bert: `AutoModelForMaskedLM`), tower, projector and block.

    Trained are `mm_proj.*` and `fusion_layer.*`; the rest stays in evaluation mode. No call leaves
    anything on the module.

    Samples hold `input_ids` `(B, L)`, `attention_mask` `(B, L)` (absent: all tokens), pictures as
    `pixel_values` `(N, 3, S, S)` or `vision_features` `(N, P, D)` (absent: text only),
    `image_index` `(B, K)` long into N, -1 for no picture (absent: picture b for text b), `scores`
    `(B, K)`, and `text_hidden` `(B, L, H)` where it is known.

    Args:
        layout: what the checkpoint that will be loaded looks like.

    Attributes:
        vision_is_frozen: the tower's outputs may be cached.
    """

    config_class = LateFusionConfig

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
            intermediate_size=config.fusion.intermediate_size or (layout and layout.inner_width),
            mlp_bias=bias,
        )
        self.fusion_input = FusionInput(
            self.language.width,
            factor=1.0 if affine else input_factor(self.llm),
            is_affine=affine,
        )
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

    @classmethod
    def from_config(cls, config: LateFusionConfig) -> LateFusion:
        """Build the model in the layout of the checkpoint the section names, and load it.

        Raises:
            ConfigError: the checkpoint lacks trained weights, or they do not fit.
        """
        source = config.checkpoint
        if source is None:
            return cls(config)
        state = names.to_native(read_state_dict(source))
        layout = names.layout_of(state)
        if layout is None and not config.allow_missing:
            raise ConfigError(
                f"model.pretrained: {source} holds no mm_proj.linear1.weight, so it is not a late "
                "fusion checkpoint; set model.allow_missing=true to start at random"
            )
        model = cls(config, layout)
        model.load_state(state, strict_trainable=not config.allow_missing, source=source)
        return model

    def train(self, mode: bool = True) -> LateFusion:
        """Set the mode of what is trained; the frozen parts stay as in evaluation."""
        super().train(mode)
        self.llm.eval()
        if self.mm_model is not None:
            self.mm_model.eval()
        return self

    # Text

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> TextStates:
        """Run the language model once; no gradients.

        Args:
            input_ids: `(B, L)`.
            attention_mask: `(B, L)`, 1 where tokens are, on either side (None: everywhere).

        Raises:
            ConfigError: more tokens than the language model has positions for.
        """
        ids = input_ids.to(self.device)
        mask = self._mask(ids, attention_mask)
        self.check_length(ids.shape[1])
        with torch.no_grad():
            return self.text_states(ids, mask, self.language.hidden(ids, mask))

    def text_states(self, input_ids: Tensor, mask: Tensor, hidden: Tensor) -> TextStates:
        """Return states of texts whose hidden states `(B, L, H)` are known."""
        visible = mask
        if self._merged_token is not None:
            first = mask & (mask.cumsum(dim=1) == 1)
            visible = mask & ~(first & (input_ids == self._merged_token))
        return TextStates(hidden, mask, visible)

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

    def _texts(self, samples: Mapping[str, Any]) -> TextStates:
        ids = samples["input_ids"].to(self.device)
        hidden = samples.get("text_hidden")
        if hidden is None:
            return self.encode_text(ids, samples.get("attention_mask"))
        mask = self._mask(ids, samples.get("attention_mask"))
        return self.text_states(ids, mask, hidden.to(self.device))

    # Pictures

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Run the tower, `(N, 3, S, S)` -> `(N, P, D)` float32; no gradients."""
        if self.mm_model is None:
            raise ConfigError("model.vision.name is null: samples must bring vision_features")
        with torch.no_grad():
            return self.mm_model(pixel_values.to(self.device))

    encode_frozen = encode_images

    def picture_states(self, features: Tensor) -> PictureStates:
        """Return the block's rows and keys of vision features `(N, P, D)`.

        Raises:
            ConfigError: features of another width than the projector's.
        """
        expected = self.mm_proj.linear1.in_features
        if features.shape[-1] != expected:
            raise ConfigError(
                f"vision features of width {features.shape[-1]}, but the projector reads "
                f"{expected}; use the tower it was trained with"
            )
        rows = self.fusion_input.patches(self.mm_proj(features.to(self.device).float()))
        places = torch.arange(rows.shape[1], device=rows.device) + self._first
        keys = keys_of(self.fusion_layer, rows, places.expand(len(rows), -1))
        return PictureStates(rows, keys)

    def _pictures(
        self, samples: Mapping[str, Any], texts: int
    ) -> tuple[PictureStates | None, Tensor]:
        """Return picture states, and which of them each text has, `(B, K)`."""
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
                    f"{len(features)} pictures for {texts} texts: say with image_index (texts, "
                    "pictures of a text) which text has which"
                )
            index = torch.arange(texts, device=self.device)[:, None]
        if not index.shape[1]:
            return None, index
        return self.picture_states(features), index

    # Fusion

    def fuse(
        self,
        text: TextStates,
        pictures: Tensor | PictureStates,
        image_index: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states of text rows that saw one picture each.

        Args:
            text: B texts.
            pictures: features `(N, P, D)`, or their states.
            image_index: `(B, K)` into N; what -1 (no picture) gives has no meaning.
            positions: `(B, R)` rows of the text; -1 is the last patch, -P the first (None: all L).

        Returns:
            `(B, K, R, H)` after the block's last norm. A row of a merged start token is the last
            patch's; a row of padding has no meaning.
        """
        states = self.picture_states(pictures) if isinstance(pictures, Tensor) else pictures
        self.check_length(states.rows.shape[1] + text.mask.shape[1])
        rows = self.fusion_input.text(text.hidden)
        text_keys = keys_of(self.fusion_layer, rows, self.places(text.keys, states))
        if positions is None:
            length = text.mask.shape[1]
            positions = torch.arange(length, device=self.device).expand(len(rows), -1)
        inputs = TextStates(rows, text.mask, text.keys)
        return self.fuse_rows(inputs, text_keys, states, image_index, positions.to(self.device))

    def places(self, keys: Tensor, pictures: PictureStates) -> Tensor:
        """Return the block's positions of text rows, `(B, L)`: they follow the patches."""
        start = self._first + pictures.rows.shape[1]
        return start + (keys.long().cumsum(dim=1) - 1).clamp(min=0)

    def fuse_rows(
        self,
        text: TextStates,
        text_keys: Keys,
        pictures: PictureStates,
        image_index: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """Return `fuse` of a text whose keys are known.

        Args:
            text: `hidden` holds the block's input of the last rows, at least of those asked for.
            text_keys: of all L rows.
            positions: `(B, R)`.
        """
        length, given_rows = text.mask.shape[1], text.hidden.shape[1]
        count, patches = image_index.shape[1], pictures.rows.shape[1]
        index = image_index.clamp(min=0)
        inside = positions.clamp(min=0)
        merged = text.replaced.gather(1, inside) & (positions >= 0)
        positions = torch.where(merged, -1, positions)
        of_text = pick(text.hidden, inside - (length - given_rows))[:, None]  # (B, 1, R, H)
        patch = (positions + patches).clamp(0, patches - 1)  # (B, R)
        of_picture = pictures.rows[index[..., None], patch[:, None]]  # (B, K, R, H)
        is_text = positions >= 0
        queries = torch.where(is_text[:, None, :, None], of_text.to(of_picture.dtype), of_picture)
        places = self.places(text.keys, pictures).gather(1, inside)
        places = torch.where(is_text, places, patch + self._first)
        visible = self._visible(text.keys, positions, patches)
        batch = torch.arange(len(positions), device=positions.device).repeat_interleave(count)
        joined = pictures.keys.select(index.flatten()).then(text_keys.select(batch))
        given = (queries.flatten(0, 1), places[batch], joined, visible[batch])
        if self.config.use_grad_checkpoint and torch.is_grad_enabled():
            fused = checkpoint(rows_of, self.fusion_layer, *given, use_reentrant=False)
        else:
            fused = rows_of(self.fusion_layer, *given)
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

    # Training, scoring, generation

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `{"loss"}`, the mean cross entropy of tokens.

        Each visible token is predicted from the visible one before it, the first one from the last
        patch, with each of its pictures on its own; padding and patches are never targets. With
        `scores` the mixed prediction is scored, which the first token has none of. BERT predicts
        each labelled token in its place.

        Args:
            samples: see the class; also `labels` `(B, L)`, -100 for tokens that are not predicted
                (absent: `input_ids`), and `loss_vocabulary` `(C,)`: softmax over these ids only;
                other targets do not count.
        """
        text = self._texts(samples)
        pictures, index = self._pictures(samples, len(text.mask))
        labels = samples.get("labels")
        if labels is None:
            if self.language.is_masked:
                raise ConfigError("a masked language model needs 'labels' to have a loss")
            labels = samples["input_ids"]
        return {"loss": fusion_loss(self, samples, text, pictures, index, labels.to(self.device))}

    @torch.no_grad()
    def predict(
        self,
        samples: Mapping[str, Any],
        columns: Mapping[str, Mixing] | None = None,
        *,
        details: bool = False,
    ) -> dict[str, Tensor]:
        """Return log-probabilities at `positions`, mixed over pictures, float32.

        Text and pictures are encoded once for all columns.

        Args:
            samples: see the class; also `positions` `(B, R)` (absent: each text's last token), and
                `token_ids` `(C,)`, `(B, C)` or `(B, R, C)`: only these are returned, normalised
                over the whole vocabulary.
            columns: ways of mixing, by name (None: the config's).
            details: also return what text and pictures predict on their own.

        Returns:
            `log_probs` `(B, R, V or C)`; with columns `log_probs.<name>` instead; with details
            `text_log_probs` and `image_log_probs` `(B, K, R, V or C)`.
        """
        text = self._texts(samples)
        pictures, index = self._pictures(samples, len(text.mask))
        return predict_columns(self, samples, text, pictures, index, columns, details=details)

    def mixing(self, num_images: int | None = None) -> Mixing:
        """Return the config's way of mixing, of a text's first pictures only (None: of all)."""
        return replace(Mixing.of(self.config), num_images=num_images)

    def generate(self, input_ids: Tensor, **options: Any) -> Tensor:
        """Continue texts; see `lavis.models.late_fusion.generation.generate`."""
        return generate(self, input_ids, Generation(**options))

    # Weights

    def frozen_fingerprint(self) -> str:
        """Return a hash of all that vision features depend on: config and weights of the tower."""
        if self._fingerprint is None:
            read = replace(
                self.config.vision, name="", weights="", width=1
            )  # where from is no matter
            digest = hashlib.sha256(repr((read, self.mm_model)).encode())
            weights = self.mm_model.state_dict() if self.mm_model is not None else {}
            for name, value in weights.items():
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                data = value.detach().to("cpu").contiguous().flatten().view(torch.uint8)
                digest.update(data.numpy())  # type: ignore[arg-type]
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def text_fingerprint(self) -> str:
        """Return a hash of all that hidden states of texts depend on."""
        return self.language.fingerprint()

    def to_native(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of vLMIG, LaMI or our own files under our names."""
        native = names.fit_to(names.to_native(state), self.state_dict())
        if self.mm_model is None:
            native = {k: v for k, v in native.items() if not k.startswith("mm_model.")}
        if self.config.quantize:
            native = {k: v for k, v in native.items() if not k.startswith(names.LLM)}
        return native

    def load_state(self, *args: Any, **kwargs: Any) -> LoadReport:
        """See `BaseModel.load_state`; all of the trained part is required, frozen pieces too."""
        self._fingerprint = None
        return super().load_state(*args, **kwargs)

    def _report(self, *args: Any, **kwargs: Any) -> LoadReport:
        report = super()._report(*args, **kwargs)
        required = tuple(name for name in report.missing if names.is_trained(name))
        return replace(report, missing_trainable=required)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return projector, block and its input, under vLMIG's names."""
        return {k: v for k, v in self.state_dict().items() if names.is_trained(k)}

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return all weights under vLMIG's names."""
        return names.to_released(self.state_dict())

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a Hugging Face folder; see `lavis.models.late_fusion.export`."""
        save_pretrained(self, folder, **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> LateFusion:
        """Read a Hugging Face folder; see `lavis.models.late_fusion.export`."""
        return cls.from_config(read_config(source, overrides))

    def get_optimizer_params(
        self, weight_decay: float, lr_layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return parameter groups: vectors are not decayed, zero-started gains learn faster."""
        gains = set(zero_started_gains(self.fusion_layer) if self.fusion_input.is_affine else [])

        def settings(name: str, weight: nn.Parameter) -> tuple[nn.Parameter, float, float]:
            held = name.removeprefix("fusion_layer.") in gains
            scale = self.config.fusion.gain_lr_scale if held else 1.0
            return weight, 0.0 if weight.ndim < 2 else weight_decay, scale

        trained = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        return group_parameters(settings(name, weight) for name, weight in trained)
