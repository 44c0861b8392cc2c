"""Any vision-language model of transformers: next tokens and losses of texts about images.

Shapes: P images of one or more views, N prompts, K tokens that are asked about.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lavis.common.checkpoint import LoadReport
from lavis.common.dist import target_device
from lavis.common.errors import ConfigError, RecordError
from lavis.common.multimodal import family_of, load_vlm
from lavis.common.multimodal.chat import template_of
from lavis.common.pretrained import padding_token
from lavis.models.base import BaseModel, freeze
from lavis.models.vlm.adapters import add_adapters, checkpoint_layers, language_part
from lavis.models.vlm.branches import Reader, TokenRow
from lavis.models.vlm.config import VlmConfig
from lavis.models.vlm.inputs import Encoded, PromptEncoder

logger = logging.getLogger(__name__)

Views = Sequence[Sequence[Tensor]]  # P lists of uint8 (3, H, W)


@contextmanager
def _noting(refused: dict[int, RecordError] | None, places: Sequence[int]) -> Iterator[None]:
    """Note an error of the block for prompts; raise it where nobody collects them."""
    try:
        yield
    except RecordError as error:
        if refused is None:
            raise
        refused |= dict.fromkeys(places, error)


@dataclass(frozen=True)
class ImagePrompt:
    """A user's message about an image; `image` is its place among the P."""

    image: int
    text: str


class VlmModel(BaseModel):
    """A frozen `AutoModelForImageTextToText`, its processor, and adapters where they are trained.

    Attributes:
        recipe: buffer `(32,)`, a hash of all that a prompt is made by beside weights, so that a
            journal's identity, which covers weights and buffers, also tells processors apart.
        has_weights: False for a model that only counts what it would read.
        reader_class: of `reader`, which runs the model.
    """

    recipe: Tensor
    has_weights: ClassVar[bool] = True
    reader_class: ClassVar[type[Reader]] = Reader

    def __init__(self, config: VlmConfig) -> None:
        super().__init__(config)
        self.config: VlmConfig = config
        refusal = f"model.name: cannot load '{config.name}'"
        self.processor, self.vlm = load_vlm(
            config.name,
            revision=config.revision,
            dtype=config.dtype,
            quantization=config.quantization,
            device=target_device(),
            refusal=refusal,
            weights=self.has_weights,
        )
        freeze(self.vlm)
        if config.lora is not None:
            add_adapters(self.vlm, config.lora)
        if config.use_grad_checkpoint:
            checkpoint_layers(self.vlm)
        self.family = family_of(self.vlm.config.model_type)
        self._bound_pixels()
        self.encoder = PromptEncoder(self.processor, self.family)
        self.reader = self.reader_class(
            self.vlm,
            self.family,
            pad=padding_token(self.processor.tokenizer),
            most_rows=config.max_texts_per_pass,
            most_tokens=config.max_tokens_per_pass,
            share=config.share_prefix,
        )
        if config.share_prefix and not self.reader.shares:
            why = self.family.why or "it takes no key/value cache"
            kind = self.vlm.config.model_type
            logger.warning("a '%s' reads an image again for each text: %s", kind, why)
        self.register_buffer("recipe", self._recipe())

    def train(self, mode: bool = True) -> VlmModel:
        """Set the mode; all but a language model with adapters stays as in evaluation."""
        super().train(mode)
        self.vlm.eval()
        if mode and self.config.lora is not None:
            language_part(self.vlm).train()
        return self

    @property
    def uses_every_weight(self) -> bool:
        """See `BaseModel`; the user may choose layers that no text passes."""
        return self.config.lora is None or self.config.lora.target_modules is None

    @torch.no_grad()
    def next_token(
        self,
        views: Views,
        prompts: Sequence[ImagePrompt],
        ids: Sequence[int],
        refused: dict[int, RecordError] | None = None,
    ) -> Tensor:
        """Return log-probabilities `(N, K)` of tokens right behind each prompt, float32.

        They are normalised over the whole vocabulary. Prompts of one image share it, and what they
        begin with.

        Args:
            views: P images as they are shown.
            prompts: N messages.
            ids: K tokens.
            refused: filled with the places of prompts that cannot be read, whose numbers are NaN
                (None: they raise).

        Raises:
            RecordError: an image that the model's processor refuses.

        Example:
            >>> prompts = [ImagePrompt(0, "Is it a cat?"), ImagePrompt(0, "Is it a dog?")]
            >>> model.next_token([[image]], prompts, [yes, no]).exp()
            tensor([[0.81, 0.11],
                    [0.07, 0.84]])
        """
        wanted = torch.tensor(list(ids), device=self.device)
        result = torch.full((len(prompts), len(ids)), float("nan"), device=self.device)
        groups = self.encoded(views, prompts, refused)
        rows = [
            TokenRow(encoded, at, place)
            for places, _, encoded in groups
            for at, place in enumerate(places)
        ]
        for row, logits in self._logits(rows):
            result[row.place] = logits[-1].float().log_softmax(dim=-1)[wanted]
        return result

    @torch.no_grad()
    def continuation_losses(
        self,
        views: Views,
        prompts: Sequence[ImagePrompt],
        continuations: Sequence[str],
        refused: dict[int, RecordError] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return `loss_sum` `(N,)`, minus the log-likelihood of each continuation, and its tokens.

        Args:
            continuations: N texts, each right behind its prompt.
            refused: as of `next_token`; also those without a token.
        """
        losses = torch.full((len(prompts),), float("nan"), device=self.device)
        counts = torch.zeros(len(prompts), dtype=torch.long, device=self.device)
        rows, targets = [], {}
        for places, texts, encoded in self.encoded(views, prompts, refused):
            for at, (place, text) in enumerate(zip(places, texts, strict=True)):
                with _noting(refused, [place]):
                    answer = self.answer_tokens(text, continuations[place])
                    targets[place] = torch.tensor(answer, device=self.device)
                    rows.append(TokenRow(encoded, at, place, answer[:-1]))
        for row, logits in self._logits(rows):
            target = targets[row.place]
            chosen = logits.float().log_softmax(dim=-1).gather(1, target[:, None])
            losses[row.place], counts[row.place] = -chosen.sum(), len(target)
        return losses, counts

    @torch.no_grad()
    def read(self, views: Views, prompt: ImagePrompt) -> tuple[str, Encoded, Tensor]:
        """Return a prompt as it is written, what the model reads of it, and what it says next.

        The last are log-probabilities `(V,)` of all tokens, float32.
        """
        ((_, texts, encoded),) = self.encoded(views, [prompt], None)
        ((_, logits),) = self._logits([TokenRow(encoded, 0, 0)])
        return texts[0], encoded, logits[-1].float().log_softmax(dim=-1)

    def answer_tokens(self, prompt: str, text: str) -> list[int]:
        """Return the tokens of a continuation of a written prompt; a student's have an end."""
        return self.encoder.continuation(prompt, text)

    def training_logits(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Return `(keep, V)` logits of the last tokens of rows, with gradients, in order."""
        with torch.autocast(self.device.type, enabled=False):
            return self.reader.together(rows)

    # Weights

    def get_optimizer_params(
        self, weight_decay: float, lr_layer_decay: float = 1.0
    ) -> list[dict[str, Any]]:
        """See `BaseModel`; raises `ConfigError` where nothing is trained."""
        groups = super().get_optimizer_params(weight_decay, lr_layer_decay)
        if not groups:
            raise ConfigError("model.lora: null trains nothing; write model.lora.rank=16")
        return groups

    def load_state(self, state: Mapping[str, Tensor], *args: Any, **options: Any) -> Any:
        """See `BaseModel.load_state`; of the adapters all must be there."""
        own = {name for name in self.state_dict() if "lora_" in name}
        if own != {name for name in state if "lora_" in name}:
            raise ConfigError(
                "adapters of the checkpoint and of model.lora differ; use the model.name and "
                "model.lora of the run that wrote it"
            )
        return super().load_state(state, *args, **options)

    def _report(self, *args: Any) -> LoadReport:
        """Leave out what is frozen: it came from the model's own folder."""
        report = super()._report(*args)
        return replace(report, missing=report.missing_trainable)

    def full_state_dict(self) -> dict[str, Tensor]:
        """Return all weights; of tied ones the first."""
        kept: dict[str, Tensor] = {}
        places: set[tuple[int, torch.Size]] = set()
        for name, value in self.state_dict().items():
            place = (value.data_ptr(), value.shape)
            if value.numel() == 0 or place not in places:
                kept[name] = value
            places.add(place)
        return kept

    def frozen_fingerprint(self) -> str:
        """Return a hash of all that prompts are made by; weights are hashed by the runner."""
        return bytes(self.recipe.tolist()).hex()

    def encode_frozen(self, image: Tensor) -> Tensor:
        """Refuse: what a tower gives is no fixed-size feature that others could read."""
        raise ConfigError("a vision-language model keeps no features; set run.cache_features=false")

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return the trained weights; none of a model that is used as it is."""
        state = super().trainable_state_dict()
        trained = {name for name, weight in self.named_parameters() if weight.requires_grad}
        return {name: value for name, value in state.items() if name in trained}

    def _recipe(self) -> Tensor:
        digest = hashlib.sha256(json.dumps(self.recipe_parts(), sort_keys=True).encode()).digest()
        return torch.tensor(list(digest), dtype=torch.uint8)

    def recipe_parts(self) -> dict[str, Any]:
        """Return what prompts and pixels are made by, JSON-able."""
        tokenizer, images = self.processor.tokenizer, self.processor.image_processor
        core = getattr(tokenizer, "backend_tokenizer", None)
        words = core.to_str() if core is not None else repr(sorted(tokenizer.get_vocab().items()))
        return {
            "family": repr(self.family),
            "template": template_of(self.processor),
            "tokenizer": hashlib.sha256(words.encode()).hexdigest(),
            "images": [type(images).__name__, images.to_json_string()],
        }

    # Passes

    def encoded(
        self,
        views: Views,
        prompts: Sequence[ImagePrompt],
        refused: dict[int, RecordError] | None = None,
    ) -> Iterator[tuple[list[int], list[str], Encoded]]:
        """Yield the prompts of one image after the other: their places, texts, and tokens."""
        places: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt.image, []).append(place)
        groups = list(places.items())
        if not self.family.is_known:
            groups = [(image, [place]) for image, own in groups for place in own]
        for image, own in groups:
            texts = [self.encoder.write(prompts[place].text, len(views[image])) for place in own]
            with _noting(refused, own):
                yield own, texts, self.encoder.encode(views[image], texts)

    def _logits(self, rows: Sequence[TokenRow]) -> Iterator[tuple[TokenRow, Tensor]]:
        """Read rows in the model's own precision, whatever the runner's autocast is."""
        with torch.autocast(self.device.type, enabled=False):
            yield from self.reader.logits(rows)

    def _bound_pixels(self) -> None:
        config, images = self.config, self.processor.image_processor
        bounds = {"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels}
        wanted = {key: value for key, value in bounds.items() if value is not None}
        if not wanted:
            return
        if self.family.pixels != "area":
            raise ConfigError(
                "model.min_pixels, model.max_pixels: the processor of a "
                f"'{self.vlm.config.model_type}' has sizes of its own; use null"
            )
        images.size = {**dict(images.size), **wanted}
