"""Critic and stage 1 whose words may be told where the image shows what they name.

Shapes: N texts of L words, P images, T tokens, R region numbers, Q queries, d Q-Former width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lavis.common.errors import ConfigError
from lavis.models.base import freeze
from lavis.models.blip2.critic import Blip2Critic
from lavis.models.blip2.matching import Blip2Matcher
from lavis.models.blip2.qformer import TextPlan
from lavis.models.blip2.stage1 import Blip2Stage1
from projects.quickstart.config import GroundedCriticConfig, GroundedStage1Config
from projects.quickstart.grounding import Grounding


class GroundedMatcher(Blip2Matcher):
    """First base of a grounded critic or stage 1; without `model.grounding` it adds nothing."""

    region_ids: Tensor  # (R,), with grounding

    def __init__(self, config: GroundedCriticConfig | GroundedStage1Config) -> None:
        super().__init__(config)
        self.grounding: Grounding | None = None
        if config.grounding is not None:
            self.grounding = Grounding(
                self.visual_encoder.num_features,
                config.qformer.hidden_size,
                config.vit.grid**2,
                num_regions=config.grounding.regions,
            )
            numbers = [str(i) for i in range(config.grounding.regions)]
            self.register_buffer("region_ids", self.word_ids(numbers), persistent=False)
            if config.grounding.freeze:
                freeze(self.grounding)
                freeze(self.ln_vision)

    def embed_pairs(self, input_ids: Tensor, image_embeds: Tensor, plan: TextPlan) -> Tensor:
        """See `Blip2Matcher`; grounding adds to every word where it points."""
        embeds = super().embed_pairs(input_ids, image_embeds, plan)
        if self.grounding is None:
            return embeds
        table = self.qformer.embeddings.word_embeddings
        counts = [texts for images, texts in plan.groups for _ in range(images)]
        images = self.to_device(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))
        tokens = self.grounding.embed_tokens(image_embeds)[images]  # (N, T, d)
        mentions = (input_ids[:, :, None] == self.region_ids).float()  # (N, L, R)
        added = self.grounding(table(input_ids), tokens, table(self.region_ids), mentions)
        num_queries = self.config.num_query_token
        return torch.cat([embeds[:, :num_queries], embeds[:, num_queries:] + added], dim=1)

    def alignment_loss(self, samples: Mapping[str, Any]) -> Tensor:
        """Return how badly words and the boxes of `samples["word_boxes"]` (P of them) agree."""
        assert self.grounding is not None
        word_boxes = samples["word_boxes"]
        words = sorted({word for boxes in word_boxes for word in boxes})
        masks, known = self.grounding.masks(word_boxes, words)
        tokens = self.grounding.embed_tokens(self.image_embeds(self.vision_features(samples)))
        embeds = self.qformer.embeddings.word_embeddings(self.to_device(self.word_ids(words)))
        return self.grounding.loss(embeds, tokens, self.to_device(masks), self.to_device(known))

    def word_ids(self, words: list[str]) -> Tensor:
        """Return the ids of words that are tokens of the vocabulary.

        Raises:
            ConfigError: a word is none.
        """
        ids = self.tokenizer.convert_tokens_to_ids(words)
        assert isinstance(ids, list)  # as `words`
        unknown = [w for w, i in zip(words, ids, strict=True) if i == self.tokenizer.unk_token_id]
        if unknown:
            raise ConfigError(
                f"model.grounding: the vocabulary has no token {unknown[0]!r}; add it to the file "
                "of model.qformer.vocab, or leave it out of the records' word_boxes"
            )
        return torch.tensor(ids, dtype=torch.long)  # none at all where no record tells of a word


class GroundedCritic(GroundedMatcher, Blip2Critic):
    """`Blip2Critic` with `model.grounding`."""

    config: GroundedCriticConfig

    @property
    def uses_every_weight(self) -> bool:
        """See `BaseModel`: aligning words and places calls neither Q-Former nor heads."""
        aligns = self.config.grounding and self.config.grounding.alignment_only
        return not aligns and super().uses_every_weight

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses of `Blip2Critic` and, where boxes of words are known, `loss_words`.

        Args:
            samples: as the critic's, and `word_boxes`: for each of the P images word -> boxes.
        """
        options = self.config.grounding
        if options is not None and options.alignment_only:
            loss = self.alignment_loss(samples)
            return {"loss": loss, "loss_words": loss.detach()}
        result = super().forward(samples)
        if options is None or samples.get("word_boxes") is None:
            return result
        logits, loss_words = result.pop("logits"), self.alignment_loss(samples)
        result["loss"] = result["loss"] + options.loss_weight * loss_words
        return {**result, "loss_words": loss_words, "logits": logits}


class GroundedStage1(GroundedMatcher, Blip2Stage1):
    """`Blip2Stage1` with `model.grounding`, whose weights come from a grounded critic."""

    config: GroundedStage1Config
