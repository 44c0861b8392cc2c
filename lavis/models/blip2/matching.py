"""Image-text matching: the fused pass and the match head that critic and stage 1 share.

Shapes: N texts, P images, Q queries, T tokens, d Q-Former width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lavis.common.errors import ConfigError
from lavis.common.sharded import is_sharded
from lavis.models.base import freeze
from lavis.models.blip2.base import Blip2Base
from lavis.models.blip2.config import MatcherConfig
from lavis.models.blip2.qformer import TextPlan, plan_texts


class Blip2Matcher(Blip2Base):
    """Q-Former over image and text, and a head of two classes; class 1 is match / accept.

    A batch has P images and N texts; `samples["image_index"]` names every text's image (absent:
    text i is about image i). Each image is encoded once, and so are its keys and values.
    """

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__(config)
        if config.freeze_word_embeddings:
            freeze(self.qformer.embeddings.word_embeddings)
        self.itm_head = nn.Linear(config.qformer.hidden_size, 2)

    @torch.no_grad()
    def predict(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `logits` `(N, 2)` and `prediction`, their softmax; `[:, 1]` is P(accept).

        Args:
            samples: `image` `(P, 3, S, S)` or `vision_features` `(P, T, D)`, `text_input` (N
                texts), `image_index` (a list or CPU tensor `(N,)`; one on a GPU is waited for).

        Example:
            >>> texts = ["what is [0]? a cup", "what is [0]? a hat", "is it night? no"]
            >>> samples = {"image": images, "text_input": texts, "image_index": [0, 0, 1]}
            >>> critic.predict(samples)["prediction"][:, 1]
            tensor([0.94, 0.05, 0.71])
        """
        logits = self.match_logits(self.fused_queries(samples))
        return {"prediction": logits.softmax(dim=1), "logits": logits}

    def match_logits(self, queries: Tensor) -> Tensor:
        """Return the head's logits averaged over queries, `(N, Q, d)` -> `(N, 2)`, float32."""
        return self.itm_head(queries).float().mean(dim=1)

    def fused_queries(self, samples: Mapping[str, Any]) -> Tensor:
        """Return the query outputs that saw image and text, `(N, Q, d)`, in the texts' order."""
        image_embeds = self.image_embeds(self.vision_features(samples))
        texts = list(samples["text_input"])
        index = host_index(samples.get("image_index"), len(texts), len(image_embeds))
        input_ids, mask = self.tokenize(texts)
        return self.fuse(image_embeds, input_ids, mask, index)

    def fuse(
        self, image_embeds: Tensor, input_ids: Tensor, mask: Tensor, image_index: list[int]
    ) -> Tensor:
        """Run the Q-Former over pairs.

        Args:
            image_embeds: `(P, T, D)`.
            input_ids, mask: `(N, L)`, on the CPU (on a GPU the mask's lengths are waited for).
            image_index: every text's image.

        Returns:
            `(N, Q, d)`, in the texts' order.
        """
        input_ids, mask = input_ids.cpu(), mask.cpu()
        most = self.config.max_texts_per_pass
        if torch.is_grad_enabled() and is_sharded(self):
            most = len(image_index)  # as many passes on every rank
        passes = plan_texts(image_index, most)
        outputs = [self._fuse_pass(plan, image_embeds, input_ids, mask) for plan in passes]
        joined = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        order = [text for plan in passes for text in plan.texts]
        if order == list(range(len(order))):
            return joined
        return joined[self.to_device(torch.tensor(order).argsort())]

    def embed_pairs(self, input_ids: Tensor, image_embeds: Tensor, plan: TextPlan) -> Tensor:
        """Return the Q-Former's input, `[queries ; words]` `(N, Q + L, d)`.

        The place where a subclass adds to the embeddings of a text what it knows of the text's
        image. Such a subclass of the critic or of stage 1, and the subclass of its config that has
        the new options, join by `models.extend("blip2_critic", Target(...))` in a module listed
        under `run.import_modules`; run files keep `arch: blip2_critic`.

        Args:
            input_ids: `(N, L)`, the plan's texts.
            image_embeds: `(P, T, D)`, the plan's images.
        """
        return self.qformer.embed(self.query_tokens, input_ids)

    def _fuse_pass(
        self, plan: TextPlan, image_embeds: Tensor, input_ids: Tensor, mask: Tensor
    ) -> Tensor:
        rows = list(plan.texts)
        length = int(mask[rows].sum(dim=1).max())  # texts are padded on the right
        input_ids, mask = input_ids[rows, :length], mask[rows, :length]
        if plan.images != tuple(range(len(image_embeds))):
            image_embeds = image_embeds[self.to_device(torch.tensor(plan.images))]
        return self.qformer(
            self.embed_pairs(self.to_device(input_ids), image_embeds, plan),
            self.with_queries(mask),
            query_length=self.config.num_query_token,
            image_embeds=image_embeds,
            groups=plan.groups,
            queries_only=True,
        )


def host_index(index: Any, num_texts: int, num_images: int) -> list[int]:
    """Return the image of every text as ints; `ConfigError` if images and texts do not match."""
    if index is None:
        if num_texts != num_images:
            raise ConfigError(
                f"{num_texts} texts for {num_images} images: samples need 'image_index'"
            )
        return list(range(num_texts))
    images = index.tolist() if isinstance(index, Tensor) else [int(i) for i in index]
    inside = all(0 <= image < num_images for image in images)
    if len(images) != num_texts or not inside:
        raise ConfigError(
            f"image_index names images for {len(images)} texts; there are {num_texts} texts "
            f"and {num_images} images"
        )
    return images
