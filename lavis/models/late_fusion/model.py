"""Late fusion: a frozen language model, and one trained block that lets its text see images.

Shapes: B texts, L tokens, K images of a text, N images of a batch, P patches of width D,
R positions, H width of hidden states, V vocabulary, C candidate tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from lavis.common.checkpoint import LoadReport, read_state_dict
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.common.sharded import as_bytes, named_weights, repeated_layers
from lavis.models.base import group_parameters
from lavis.models.late_fusion import checkpoints
from lavis.models.late_fusion.config import LateFusionConfig
from lavis.models.late_fusion.families import WHOLE_BLOCKS
from lavis.models.late_fusion.fusion import FusionBase
from lavis.models.late_fusion.generation import DecodingOptions, generate
from lavis.models.late_fusion.identity import zero_started_gains
from lavis.models.late_fusion.language import SharedStarts
from lavis.models.late_fusion.mixing import Mixing
from lavis.models.late_fusion.scoring import fusion_loss, predict_columns


@models.register("late_fusion")
class LateFusion(FusionBase):
    """Frozen `AutoModelForCausalLM` (bert: `AutoModelForMaskedLM`), tower, projector and block.

    Trained are `mm_proj.*` and `fusion_layer.*`; the rest stays in evaluation mode. No call leaves
    anything on the module.

    Samples hold `input_ids` `(B, L)`, `attention_mask` `(B, L)` (absent: all tokens), images as
    `pixel_values` `(N, 3, S, S)` or `vision_features` `(N, P, D)` (absent: text only),
    `image_index` `(B, K)` long into N, -1 for no image (absent: image b for text b), `scores`
    `(B, K)`, and `text_hidden` `(B, L, H)` where it is known.
    """

    config_class = LateFusionConfig
    stacks = MappingProxyType({"llm.": "", "fusion_layer.": ""})

    @property
    def uses_every_weight(self) -> bool:
        """See `BaseModel`: wherever texts have images, which training ensures.

        Of families that are not listed a block may leave weights alone, such as experts.
        """
        return self.language.config.model_type in WHOLE_BLOCKS

    @classmethod
    def from_config(cls, config: LateFusionConfig) -> LateFusion:
        """Build the model in the layout of the checkpoint the section names, and load it.

        Raises:
            ConfigError: the checkpoint lacks trained weights, or they do not fit.
        """
        source = config.checkpoint
        if source is None:
            return cls(config)
        state = checkpoints.to_native(read_state_dict(source))
        layout = checkpoints.layout_of(state)
        if layout is None and not config.allow_missing:
            raise ConfigError(
                f"model.pretrained: {source} holds no mm_proj.linear1.weight, so it is not a late "
                "fusion checkpoint; set model.allow_missing=true to start at random"
            )
        model = cls(config, layout)
        model.load_state(state, strict_trainable=not config.allow_missing, source=source)
        return model

    # Training, scoring, generation

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss`, the mean cross entropy of tokens, and `targets`, how many these are.

        Each visible token is predicted from the visible one before it, the first one from the last
        patch, with each of its images on its own; padding and patches are never targets. With
        `scores` the mixed prediction is scored, which the first token has none of. BERT predicts
        each labelled token in its place.

        Args:
            samples: see the class; also `labels` `(B, L)`, -100 for tokens that are not predicted
                (absent: `input_ids`), and `loss_vocabulary` `(C,)`: softmax over these ids only;
                other targets do not count.
        """
        text = self.texts_of(samples)
        images, index = self.images_of(samples, len(text.mask))
        labels = samples.get("labels")
        if labels is None:
            if self.language.is_masked:
                raise ConfigError("a masked language model needs 'labels' to have a loss")
            labels = samples["input_ids"]
        labels = labels.to(self.device)
        loss, count = fusion_loss(self, samples, text, images, index, labels)
        return {"loss": loss, "targets": count}

    @torch.no_grad()
    def predict(
        self,
        samples: Mapping[str, Any],
        columns: Mapping[str, Mixing] | None = None,
        *,
        details: bool = False,
    ) -> dict[str, Tensor]:
        """Return log-probabilities at `positions`, mixed over images, float32.

        Text and images are encoded once for all columns.

        Args:
            samples: see the class; also `positions` `(B, R)` (absent: each text's last token);
                `token_ids` `(C,)`, `(B, C)` or `(B, R, C)`: only these are returned, normalised
                over the whole vocabulary; and `text_index` `(B,)`, where one text stands for
                several B: texts are `(T, L)` then, all else stays `(B, ...)`.
            columns: ways of mixing, by name (None: the config's).
            details: also return what text and images predict on their own.

        Returns:
            `log_probs` `(B, R, V or C)`; with columns `log_probs.<name>` instead; with details
            `text_log_probs` and `image_log_probs` `(B, K, R, V or C)`.

        Example:
            >>> columns = {"text": Mixing(num_images=0), "mean": Mixing(weights="mean")}
            >>> result = model.predict({**samples, "token_ids": yes_and_no}, columns)
            >>> result["log_probs.mean"].shape  # (B, R, C)
            torch.Size([4, 1, 2])
        """
        text = self.texts_of(samples)
        of = samples.get("text_index")
        images, index = self.images_of(samples, len(text.mask if of is None else of))
        return predict_columns(self, samples, text, images, index, columns, details=details)

    def mixing(self, num_images: int | None = None) -> Mixing:
        """Return the config's way of mixing, of a text's first images only (None: of all)."""
        return replace(Mixing.of(self.config), num_images=num_images)

    def shared_starts(self, length: int, first: Tensor, of: Tensor) -> SharedStarts:
        """Return which texts begin alike, for `encode_text`; see `SharedStarts`."""
        return SharedStarts(length, first, of)

    def generate(self, input_ids: Tensor, **options: Any) -> Tensor:
        """Continue texts; see `lavis.models.late_fusion.generation.generate`."""
        return generate(self, input_ids, DecodingOptions(**options))

    # Weights

    def frozen_fingerprint(self) -> str:
        """Return a hash of all that vision features depend on: config and weights of the tower."""
        if self._fingerprint is None:
            vision = self.config.vision
            read = (vision.layer, vision.drop_class_token, vision.grid, vision.input_size)
            digest = hashlib.sha256(repr((read, self.mm_model)).encode())
            for name, value in named_weights(self.mm_model or nn.Module()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(as_bytes(value))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def text_fingerprint(self) -> str:
        """Return a hash of all that hidden states of texts depend on."""
        return self.language.fingerprint()

    def to_native(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of vLMIG, LaMI or our own files under our checkpoints."""
        native = checkpoints.fit_to(checkpoints.to_native(state), self.state_dict())
        if self.mm_model is None:
            native = {k: v for k, v in native.items() if not k.startswith("mm_model.")}
        if self.config.quantize:
            native = {k: v for k, v in native.items() if not k.startswith(checkpoints.LLM)}
        return native

    def load_state(self, *args: Any, **kwargs: Any) -> LoadReport:
        """See `BaseModel.load_state`; all of the trained part is required, frozen pieces too."""
        self._fingerprint = None
        return super().load_state(*args, **kwargs)

    def _report(self, *args: Any, **kwargs: Any) -> LoadReport:
        report = super()._report(*args, **kwargs)
        required = tuple(name for name in report.missing if checkpoints.is_trained(name))
        return replace(report, missing_trainable=required)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return projector, block and its input, under vLMIG's checkpoints."""
        return {k: v for k, v in self.state_dict().items() if checkpoints.is_trained(k)}

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return all weights under vLMIG's checkpoints."""
        return checkpoints.to_released(self.state_dict())

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a Hugging Face folder; see `lavis.models.late_fusion.checkpoints`."""
        checkpoints.save_pretrained(self, folder, **options)

    def check_exportable(self) -> None:
        """Raise `ConfigError` where `export_vlmig_bin` would."""
        checkpoints.check_exportable(self)

    def export_vlmig_bin(self, path: str | Path) -> None:
        """Write the released code's file; see `lavis.models.late_fusion.checkpoints`."""
        checkpoints.export_vlmig_bin(self, path)

    @classmethod
    def from_pretrained(cls, source: str | Path, **overrides: Any) -> LateFusion:
        """Read a Hugging Face folder; see `lavis.models.late_fusion.checkpoints`."""
        return cls.from_config(checkpoints.read_config(source, overrides))

    def layers_to_shard(self, device: torch.device) -> list[nn.Module]:
        """See `BaseModel`; the trained block is left in the middle of its layer, so it is whole."""
        tower = repeated_layers(self.mm_model) if self.mm_model is not None else []
        return [*repeated_layers(self.llm), *tower]

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
