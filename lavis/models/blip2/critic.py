"""BLIP-2 critic: does a text (question, answer, rationale) hold for the picture it is about?

Shapes: N texts, P pictures, Q queries, d Q-Former width. Label 1 is accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.base import freeze
from lavis.models.blip2.config import CriticConfig
from lavis.models.blip2.grounding import Grounding
from lavis.models.blip2.matching import Blip2Matcher
from lavis.models.blip2.qformer import TextPlan


@models.register("blip2_critic")
class Blip2Critic(Blip2Matcher):
    """The match head is the critic's verdict; two more heads learn annotators' scores beside it."""

    uses_every_weight = True
    fresh_keys = ("qa_head.", "r_head.")  # stage-1 files have none; scoring does not use them
    unused_keys = (
        "Qformer.cls.",
        "lm_head.",
        "temp",
        "vision_proj.",
        "text_proj.",
        "qformer.embeddings.position_ids",
    )

    def __init__(self, config: CriticConfig) -> None:
        super().__init__(config)
        self.config: CriticConfig = config
        width = config.qformer.hidden_size
        self.qa_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.r_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.grounding: Grounding | None = None
        if config.grounding is not None:
            self.grounding = Grounding(
                self.visual_encoder.num_features,
                width,
                config.vit.grid**2,
                num_regions=config.grounding.regions,
            )
            numbers = [str(i) for i in range(config.grounding.regions)]
            self.register_buffer("region_ids", self.word_ids(numbers), persistent=False)
            if config.grounding.freeze:
                freeze(self.grounding)
                freeze(self.ln_vision)
        if config.freeze_word_embeddings:
            freeze(self.qformer.embeddings.word_embeddings)

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses.

        Args:
            samples: `image` `(P, 3, S, S)` or `vision_features` `(P, T, D)`, `text_input`
                (N texts), `image_index` `(N,)`, `label` `(N,)` of 0 and 1, and, where
                annotators gave scores, `qa_label` and `r_label` `(N,)`.

        Returns:
            `loss = loss_label + qa_weight * loss_qa + r_weight * loss_r`, its parts (those whose
            labels are there), and `logits` `(N, 2)`, detached.
        """
        if self.config.grounding and self.config.grounding.alignment_only:
            loss = self.alignment_loss(samples)
            return {"loss": loss, "loss_words": loss.detach()}
        queries = self.fused_queries(samples)  # (N, Q, d)
        logits = self.match_logits(queries)
        label = self.to_device(samples["label"]).long()
        losses = {"loss_label": F.cross_entropy(logits, label)}
        total = losses["loss_label"]
        heads = (
            ("loss_qa", self.qa_head, "qa_label", self.config.qa_weight),
            ("loss_r", self.r_head, self.config.rationale_target, self.config.r_weight),
        )
        for name, head, key, weight in heads:
            predicted = head(queries).float().mean(dim=1).squeeze(1)  # (N,)
            target = samples.get(key)
            if target is None:
                total = total + 0.0 * predicted.sum()  # gradients of zero, which DDP waits for
            else:
                losses[name] = F.mse_loss(predicted, self.to_device(target).float())
                total = total + weight * losses[name]
        if self.config.grounding and samples.get("word_boxes") is not None:
            losses["loss_words"] = self.alignment_loss(samples)
            total = total + self.config.grounding.loss_weight * losses["loss_words"]
        return {"loss": total, **losses, "logits": logits.detach()}

    def embed_pairs(self, input_ids: Tensor, image_embeds: Tensor, plan: TextPlan) -> Tensor:
        """See `Blip2Matcher`; grounding adds to every word where it points."""
        embeds = super().embed_pairs(input_ids, image_embeds, plan)
        if self.grounding is None:
            return embeds
        table = self.qformer.embeddings.word_embeddings
        counts = [texts for pictures, texts in plan.groups for _ in range(pictures)]
        pictures = self.to_device(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))
        looks = self.grounding.looks(image_embeds)[pictures]  # (N, T, d)
        mentions = (input_ids[:, :, None] == self.region_ids).float()  # (N, L, R)
        added = self.grounding(table(input_ids), looks, table(self.region_ids), mentions)
        num_queries = self.config.num_query_token
        return torch.cat([embeds[:, :num_queries], embeds[:, num_queries:] + added], dim=1)

    def alignment_loss(self, samples: Mapping[str, Any]) -> Tensor:
        """Return how badly words and the boxes of `samples["word_boxes"]` (P of them) agree."""
        assert self.grounding is not None
        word_boxes = samples["word_boxes"]
        words = sorted({word for boxes in word_boxes for word in boxes})
        masks, known = self.grounding.masks(word_boxes, words)
        looks = self.grounding.looks(self.image_embeds(self.vision_features(samples)))
        embeds = self.qformer.embeddings.word_embeddings(self.to_device(self.word_ids(words)))
        return self.grounding.loss(embeds, looks, self.to_device(masks), self.to_device(known))

    def word_ids(self, words: list[str]) -> Tensor:
        """Return the ids of words that are tokens of the vocabulary.

        Raises:
            ConfigError: a word is none.
        """
        ids = self.tokenizer.convert_tokens_to_ids(words)
        unknown = [w for w, i in zip(words, ids, strict=True) if i == self.tokenizer.unk_token_id]
        if unknown:
            raise ConfigError(
                f"model.grounding: the vocabulary has no token {unknown[0]!r}; add it to the file "
                "of model.qformer.vocab, or leave it out of the records' word_boxes"
            )
        return torch.tensor(ids)
