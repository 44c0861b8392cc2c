"""BLIP-2 critic: does a text (question, answer, rationale) hold for the picture it is about?

Shapes: N texts, P pictures, Q queries, d Q-Former width. Label 1 is accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.registry import models
from lavis.models.base import freeze
from lavis.models.blip2.base import Blip2Base, host_index
from lavis.models.blip2.config import CriticConfig
from lavis.models.blip2.qformer import TextPlan, plan_texts


@models.register("blip2_critic")
class Blip2Critic(Blip2Base):
    """Q-Former over picture and text, a match head, and two heads that regress annotators' scores.

    A batch has P pictures and N texts; `samples["image_index"]` names every text's picture (absent:
    text i is about picture i). Each picture is encoded once, and so are its keys and values.
    """

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
        self.itm_head = nn.Linear(width, 2)
        self.qa_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.r_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
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
        queries = self.fused_queries(samples)  # (N, Q, d)
        logits = self.itm_head(queries).float().mean(dim=1)
        label = self._on_device(samples["label"]).long()
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
                losses[name] = F.mse_loss(predicted, self._on_device(target).float())
                total = total + weight * losses[name]
        return {"loss": total, **losses, "logits": logits.detach()}

    @torch.no_grad()
    def predict(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `logits` `(N, 2)` and `prediction`, their softmax; `[:, 1]` is P(accept)."""
        logits = self.itm_head(self.fused_queries(samples)).float().mean(dim=1)
        return {"prediction": logits.softmax(dim=1), "logits": logits}

    def fused_queries(self, samples: Mapping[str, Any]) -> Tensor:
        """Return the query outputs that saw picture and text, `(N, Q, d)`, in the texts' order."""
        image_embeds = self.image_embeds(self.vision_features(samples))
        texts = samples["text_input"]
        index = host_index(samples.get("image_index"), len(texts), len(image_embeds))
        passes = plan_texts(index, self.config.max_texts_per_pass)
        outputs = [self._fuse(plan, texts, image_embeds) for plan in passes]
        order = [text for plan in passes for text in plan.texts]
        joined = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        if order == list(range(len(texts))):
            return joined
        back = torch.tensor(order).argsort().to(self.device, non_blocking=True)
        return joined[back]

    def _fuse(self, plan: TextPlan, texts: list[str], image_embeds: Tensor) -> Tensor:
        input_ids, mask = self.tokenize([texts[text] for text in plan.texts])
        if plan.pictures != tuple(range(len(image_embeds))):
            rows = torch.tensor(plan.pictures).to(self.device, non_blocking=True)
            image_embeds = image_embeds[rows]
        return self.qformer(
            self.qformer.embed(self.query_tokens, input_ids.to(self.device, non_blocking=True)),
            self.with_queries(mask),
            query_length=self.config.num_query_token,
            image_embeds=image_embeds,
            groups=plan.groups,
            queries_only=True,
        )

    def _on_device(self, values: Any) -> Tensor:
        return torch.as_tensor(values).to(self.device, non_blocking=True)
