"""Parts shared by BLIP-2's models: vision tower, queries, Q-Former, tokenizer, loading.

Shapes: P images, S edge in pixels, T tokens of width D, N texts, Q queries, L text tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from lavis.common.checkpoint import read_state_dict, shorten
from lavis.common.errors import ConfigError
from lavis.common.sharded import as_bytes, named_weights
from lavis.models.base import DTYPES, BaseModel, ZeroInit, freeze, group_parameters, in_parts
from lavis.models.blip2 import keys
from lavis.models.blip2.config import Blip2Config
from lavis.models.blip2.qformer import QFormer, build_tokenizer
from lavis.models.vision import (
    TOWERS,
    FeatureMapTower,
    build_vision_tower,
)

TOWER = "visual_encoder."


class Blip2Base(BaseModel):
    """Tower -> `ln_vision` -> Q-Former with learnt queries; heads are the subclasses'.

    Attributes:
        vision_is_frozen: the tower is never trained, so its outputs may be cached.
        qformer_reads_text: the Q-Former has words; false where a language model reads them.
    """

    qformer_reads_text = True
    stacks = MappingProxyType(
        {
            "visual_encoder.": "model.vit.depth",
            "qformer.model.encoder.": "model.qformer.num_hidden_layers",
            "language_model.": "",
        }
    )

    def __init__(self, config: Blip2Config) -> None:
        super().__init__(config)
        self.config: Blip2Config = config
        self.vision_is_frozen = config.freeze_vit
        with self._initial_weights():
            self.visual_encoder = build_vision_tower(
                config.vit_model,
                config.image_size,
                config.vit,
                drop_path_rate=config.drop_path_rate,
                use_grad_checkpoint=config.use_grad_checkpoint and not config.freeze_vit,
            )
        if config.freeze_vit:
            freeze(self.visual_encoder)
        width = self.visual_encoder.num_features
        self.ln_vision = nn.LayerNorm(width)  # eps 1e-5
        self.tokenizer = build_tokenizer(config.qformer)
        with self._initial_weights():
            self.qformer = QFormer(
                config.qformer,
                num_query_token=config.num_query_token,
                cross_attention_freq=config.cross_attention_freq,
                image_width=self.attended_width(width),
                vocab_size=config.qformer.vocab_size or len(self.tokenizer),
                reads_text=self.qformer_reads_text,
                use_grad_checkpoint=config.use_grad_checkpoint,
            )
        shape = (1, config.num_query_token, config.qformer.hidden_size)
        self.query_tokens = nn.Parameter(torch.randn(shape) * config.qformer.query_init_std)
        self._fingerprint: str | None = None

    def _initial_weights(self) -> contextlib.AbstractContextManager[Any]:
        """Zeros where a checkpoint must bring every weight, random numbers elsewhere."""
        replaced = self.config.checkpoint and not self.config.allow_missing
        return ZeroInit() if replaced else contextlib.nullcontext()

    # Images

    @property
    def uses_every_weight(self) -> bool:
        """See `BaseModel`: stages behind the last that is read of a feature-map tower are idle."""
        return self.vision_is_frozen or self.config.vit.out_indices is None

    def train(self, mode: bool = True) -> Blip2Base:
        """Set the mode; a frozen tower stays as in evaluation (drop path, batch norms)."""
        super().train(mode)
        if self.vision_is_frozen:
            self.visual_encoder.eval()
        return self

    def encode_frozen(self, image: Tensor) -> Tensor:
        """Return the tower's tokens, `(P, 3, S, S)` -> `(P, T, D)` float32, before `ln_vision`."""
        with torch.no_grad():
            return self._run_tower(image)

    def frozen_fingerprint(self) -> str:
        """Return a hash of all that the tower's outputs depend on: config, weights, precision."""
        if self._fingerprint is None:
            self._settle_precision()
            digest = hashlib.sha256()
            sizes = (self.config.vit_model, self.config.image_size, self._compute_dtype())
            digest.update(repr((sizes, self.visual_encoder)).encode())
            for name, value in named_weights(self.visual_encoder):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(as_bytes(value))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def vision_features(self, samples: Mapping[str, Any]) -> Tensor:
        """Return `samples["vision_features"]`, or run the tower on `samples["image"]`."""
        features = samples.get("vision_features")
        if features is not None:
            return self.to_device(features).float()
        image = self.to_device(samples["image"])
        return self.encode_frozen(image) if self.vision_is_frozen else self._run_tower(image)

    def image_embeds(self, features: Tensor) -> Tensor:
        """Return what the Q-Former attends to: tokens after `ln_vision`, `(P, T, D)`."""
        return self.ln_vision(features)

    def image_pass(self, image_embeds: Tensor) -> Tensor:
        """Return query outputs of images alone, `(P, Q, d)`."""
        queries = self.query_tokens.expand(len(image_embeds), -1, -1)
        length = self.config.num_query_token
        return self.qformer(queries, query_length=length, image_embeds=image_embeds)

    def attended_width(self, width: int) -> int:
        """Return the width of `image_embeds`; called while building, with the tower's width."""
        return width

    def to_device(self, values: Any) -> Tensor:
        """Return a tensor (or what makes one) on the model's device, without waiting for it."""
        return torch.as_tensor(values).to(self.device, non_blocking=True)

    def _run_tower(self, image: Tensor) -> Tensor:
        self._settle_precision()
        dtype = self._compute_dtype()
        context: Any = contextlib.nullcontext()
        if dtype is not None:
            context = torch.autocast(self.device.type, dtype=dtype)
        with context:
            tower = self.visual_encoder
            return in_parts(lambda part: tower(part).float(), image, module=tower)

    def _compute_dtype(self) -> torch.dtype | None:
        """Half precision is for GPUs; on a CPU it is slow, and in part not there."""
        if self.device.type != "cuda" or self.config.vit_precision == "fp32":
            return None
        return DTYPES[self.config.vit_precision]

    def _settle_precision(self) -> None:
        """Halve a frozen tower's matrices, as autocast would on every call; norms stay float32."""
        dtype = self._compute_dtype()
        if dtype is None or not self.vision_is_frozen:
            return
        for module in self.visual_encoder.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.dtype == torch.float32:
                module.to(dtype)

    # Texts

    def tokenize(self, texts: list[str], max_length: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ids and mask `(N, L)` on the CPU, cut, padded on the right to the longest.

        Args:
            texts: N texts.
            max_length: tokens kept, `[CLS]` and `[SEP]` included (None: `max_txt_len`).
        """
        batch = self.tokenizer(
            texts,
            padding="longest",
            truncation=True,
            max_length=max_length or self.config.max_txt_len,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        return batch["input_ids"], batch["attention_mask"]

    def with_queries(self, mask: Tensor) -> Tensor | None:
        """Return the key mask `(N, 1, 1, Q + L)` of `[queries ; text]`; None: all keys are seen.

        Args:
            mask: `(N, L)` on the CPU, where looking at its values waits for nothing.
        """
        if bool(mask.all()):
            return None
        queries = torch.ones(len(mask), self.config.num_query_token, dtype=torch.bool)
        whole = torch.cat([queries, mask.bool()], dim=1)[:, None, None]
        return self.to_device(whole)

    # Weights

    def load_from_config(self) -> None:
        """Load the checkpoint the section names, and the tower where the checkpoint has none."""
        config = self.config
        state: dict[str, Tensor] = {}
        if config.checkpoint:
            state = self.to_native(read_state_dict(config.checkpoint))
        sources = [config.checkpoint] if config.checkpoint else []
        if not any(name.startswith(TOWER) for name in state):
            tower = self._tower_file()
            if tower is not None:
                state.update(self._read_tower(tower))
                sources.append(tower)
        if not sources:
            return
        strict = bool(config.checkpoint) and not config.allow_missing
        source = " + ".join(sources)
        report = self.load_state(
            state, strict_trainable=strict, strict_frozen=strict, source=source
        )
        absent = [name for name in report.missing if name.startswith(TOWER)]
        if absent and not config.allow_missing:  # the tower's own file is not the whole tower
            hint = self.missing_hint(absent)
            raise ConfigError(
                f"{source} lacks {len(absent)} weights of the tower: {shorten(absent)}{hint}"
            )

    def _tower_file(self) -> str | None:
        config = self.config
        if config.vit.weights or config.vit_model not in TOWERS or config.vit.is_resized:
            return config.vit.weights
        return TOWERS[config.vit_model].url

    def _read_tower(self, source: str) -> dict[str, Tensor]:
        tower = read_state_dict(source)
        if any(name.startswith(TOWER) for name in tower):
            native = keys.to_native(tower)
            return {k: v for k, v in native.items() if k.startswith(TOWER)}
        if "class_embedding" in tower:
            tower = keys.clip_to_timm({k.removeprefix("visual."): v for k, v in tower.items()})
        prefix = TOWER
        if isinstance(self.visual_encoder, FeatureMapTower):
            prefix += "" if any(name.startswith("body.") for name in tower) else "body."
        own = self.state_dict()
        named = {prefix + name: value for name, value in tower.items()}
        # The published files hold one block, a norm and a head more. Other blocks stay, so that a
        # file of another depth is refused.
        blocks, last = f"{TOWER}blocks.", f"{TOWER}blocks.{self.visual_encoder.depth}."
        return {
            name: value
            for name, value in named.items()
            if name in own or (name.startswith(blocks) and not name.startswith(last))
        }

    def load_state(self, *args: Any, **kwargs: Any) -> Any:
        """See `BaseModel.load_state`."""
        self._fingerprint = None
        return super().load_state(*args, **kwargs)

    def missing_hint(self, missing: list[str]) -> str:
        """Return what to do about missing weights; a tower can come from its own file."""
        if all(name.startswith(TOWER) for name in missing):
            return (
                "; name a file with the tower in model.vit.weights, or set "
                "model.allow_missing=true to keep a random one"
            )
        return super().missing_hint(missing)

    def to_native(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights of LAVIS, Hugging Face or our own files under our names."""
        return keys.to_native(state)

    def fit(self, name: str, value: Tensor, own: Tensor, source: str) -> Tensor:
        """Resample a position table; fill the word table as far as the rows go."""
        if name == TOWER + "pos_embed" and value.shape[-1] == own.shape[-1]:
            named = TOWERS.get(self.config.vit_model)
            return keys.resize_position_table(
                value,
                own.shape[1],
                num_prefix=self.visual_encoder.num_prefix_tokens,
                align_corners=bool(named and named.align_corners),
            )
        if name in (keys.WORDS, "lm_head.bias") and value.shape[1:] == own.shape[1:]:
            rows = min(len(value), len(own))
            filled = own.detach().clone()
            filled[:rows] = value[:rows]
            return filled
        return super().fit(keys.lavis_name(name), value, own, source)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return what training changes, in LAVIS's names.

        A frozen word table goes along under the decoder's name, as in the released checkpoints.
        """
        names = {name for name, weight in self.named_parameters() if weight.requires_grad}
        if not self.vision_is_frozen:  # its batch norms' statistics change as well
            names |= {name for name in self.state_dict() if name.startswith(TOWER)}
        whole = self.state_dict()
        state = self._lavis({name: whole[name] for name in whole if name in names})
        if keys.WORDS in whole and keys.WORDS not in names:
            state[keys.TIED_WORDS] = whole[keys.WORDS]
        return state

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return all weights in LAVIS's names."""
        return self._lavis(self.state_dict())

    def _lavis(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return keys.to_lavis(state, clip_tower=self.config.vit_model == "clip_L")

    def layers_to_shard(self, device: torch.device) -> list[nn.Module]:
        """See `BaseModel`; a frozen tower takes its precision before its weights are split."""
        self.to(device)
        self._settle_precision()
        return super().layers_to_shard(device)

    def get_optimizer_params(
        self, weight_decay: float, lr_layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """Return parameter groups of the trainable weights.

        1-D weights and biases are not decayed; queries and the 0-D temperature are, as released.
        Tower layer i of L blocks gets `lr_scale = lr_layer_decay ** (L + 1 - i)`; all else 1.
        """
        depth = self.visual_encoder.depth

        def settings(name: str, weight: nn.Parameter) -> tuple[nn.Parameter, float, float]:
            decay = 0.0 if weight.ndim == 1 or name.endswith(".bias") else weight_decay
            scale = 1.0
            if name.startswith(TOWER):
                layer = keys.layer_of(name.removeprefix(TOWER), depth)
                scale = lr_layer_decay ** (depth + 1 - layer)
            return weight, decay, scale

        return group_parameters(
            settings(name, weight)
            for name, weight in self.named_parameters()
            if weight.requires_grad
        )
