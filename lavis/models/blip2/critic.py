"""BLIP-2 critic: does a text (question, answer, rationale) hold for the image it is about?

Shapes: N texts, P images, Q queries, d Q-Former width. Label 1 is accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.registry import models
from lavis.models.blip2.config import CriticConfig
from lavis.models.blip2.matching import Blip2Matcher


@models.register("blip2_critic")
class Blip2Critic(Blip2Matcher):
    """The match head is the critic's verdict; two more heads learn annotators' scores beside it."""

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
        return {"loss": total, **losses, "logits": logits.detach()}
