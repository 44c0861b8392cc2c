"""BLIP-2 stage 1: contrast images with texts, match pairs, caption from the queries alone.

Shapes: B images and their texts, G the same over all ranks, Q queries, L text tokens, d Q-Former
width, e width of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as torch_dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

from lavis.common import dist
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.base import IGNORED
from lavis.models.blip2.config import Stage1Config
from lavis.models.blip2.matching import Blip2Matcher, host_index

SMOOTHING = 0.1


@dataclass(frozen=True)
class Blip2Features:
    """What `extract_features` returns; the fields its mode does not ask for are None.

    Attributes:
        image_embeds: `(B, Q, d)` query outputs; `image_embeds_proj`: `(B, Q, e)`, of length 1.
        text_embeds: `(B, L, d)`; `text_embeds_proj`: `(B, L, e)`, of length 1.
        multimodal_embeds: `(B, Q, d)` query outputs that saw the text as well.
    """

    image_embeds: Tensor | None = None
    image_embeds_proj: Tensor | None = None
    text_embeds: Tensor | None = None
    text_embeds_proj: Tensor | None = None
    multimodal_embeds: Tensor | None = None


@dataclass(frozen=True)
class Negatives:
    """A wrong image for every text and a wrong text for every image, rows of the gathered G.

    Attributes:
        images, texts: `(B,)`.
        has_image, has_text: `(B,)` bool, False where every candidate is a positive.
    """

    images: Tensor
    texts: Tensor
    has_image: Tensor
    has_text: Tensor


class CaptionHead(nn.Module):
    """Next-token logits, float32, over `num_words` words, with the word table as decoder."""

    def __init__(self, config: Any, num_words: int) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.bias = nn.Parameter(torch.zeros(num_words))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Return logits `(N, L, V)` of hidden states `(N, L, d)` and a table of words `(V, d)`."""
        return F.linear(self.transform(hidden), table, self.bias).float()


@models.register("blip2")
class Blip2Stage1(Blip2Matcher):
    """Three losses of equal weight on one Q-Former; also scores pairs, by matching or contrast."""

    fresh_keys = ("lm_head.", "temp")  # Hugging Face folders have neither
    unused_keys = (
        "qa_head.",
        "r_head.",
        "Qformer.cls.predictions.decoder.",  # tied to the word table and to lm_head.bias
        "qformer.embeddings.position_ids",
    )

    def __init__(self, config: Stage1Config) -> None:
        super().__init__(config)
        self.config: Stage1Config = config
        width = config.qformer.hidden_size
        self.vision_proj = nn.Linear(width, config.embed_dim)
        self.text_proj = nn.Linear(width, config.embed_dim)
        self.temp = nn.Parameter(torch.tensor(config.temperature_init))
        words = len(self.qformer.embeddings.word_embeddings.weight)
        self.lm_head = CaptionHead(self.qformer.model.config, words)

    def forward(
        self, samples: Mapping[str, Any], negatives: Negatives | None = None
    ) -> dict[str, Tensor]:
        """Return `loss = loss_itc + loss_itm + loss_lm` and its parts.

        Differs from the released code where a text has no negative at all: the matching loss leaves
        it out, instead of pairing it with its own image as a wrong one.

        Args:
            samples: `image` `(P, 3, S, S)` or `vision_features`, `text_input` (B texts) with
                `image_index` `(B,)` (absent: text i is about image i), and `image_id` `(B,)`, equal
                for one image (absent: all differ); `model.same_image` says how the contrast
                treats texts of one image.
            negatives: instead of ones drawn by similarity, never from the same image.
        """
        image_embeds = self.image_embeds(self.vision_features(samples))
        texts = list(samples["text_input"])
        index = host_index(samples.get("image_index"), len(texts), len(image_embeds))
        if index != list(range(len(image_embeds))):
            image_embeds = image_embeds[self.to_device(index)]  # (B, T, D), one for each text
        input_ids, mask = self.tokenize_alike(texts)
        ids = samples.get("image_id")
        own = self.own_pairs(len(texts))
        same = own if ids is None else self.same_images(self.to_device(ids))  # (B, G)
        queries, text_hidden = self.caption_pass(image_embeds, input_ids, mask)
        similarities = self.similarities(queries, self.text_pass(input_ids, mask)[:, 0])
        if negatives is None:
            negatives = draw_negatives(*similarities, same)
        targets = contrastive_targets(own, same, self.config.same_image)
        losses = {
            "loss_itc": contrastive_loss(*similarities, *targets),
            "loss_itm": self.matching_loss(image_embeds, input_ids, mask, negatives),
            "loss_lm": self.caption_loss(text_hidden, self.decoder_ids(input_ids), mask),
        }
        return {"loss": sum(losses.values(), torch.zeros_like(losses["loss_itc"])), **losses}

    # Passes through the Q-Former

    def tokenize_alike(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask on the device, as long as the longest text of any rank."""
        input_ids, mask = (self.to_device(tensor) for tensor in self.tokenize(texts))
        if _ranks()[1] > 1:
            length = torch.tensor(mask.shape[1], device=self.device)
            torch_dist.all_reduce(length, op=torch_dist.ReduceOp.MAX)
            input_ids, mask = (F.pad(t, (0, int(length) - t.shape[1])) for t in (input_ids, mask))
        return input_ids, mask

    def caption_pass(
        self, image_embeds: Tensor, input_ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return query outputs that saw the image only `(B, Q, d)`, and text outputs `(B, L, d)`.

        One sequence with a mask replaces a cache of keys and values: queries see queries, a word
        sees queries and earlier words, and never the image.
        """
        num_queries, length = self.config.num_query_token, input_ids.shape[1]
        size = num_queries + length
        sees = torch.ones(size, size, dtype=torch.bool, device=self.device).tril()
        sees[:num_queries, :num_queries] = True
        keys = F.pad(mask.bool(), (num_queries, 0), value=True)  # (B, Q + L)
        hidden = self.qformer(
            self.qformer.embed(self.query_tokens, self.decoder_ids(input_ids)),
            (sees & keys[:, None])[:, None],  # (B, 1, Q + L, Q + L)
            query_length=num_queries,
            image_embeds=image_embeds,
        )
        return hidden[:, :num_queries], hidden[:, num_queries:]

    def text_pass(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return outputs of texts alone, `(B, L, d)`."""
        embeds = self.qformer.embed(None, input_ids)
        return self.qformer(embeds, mask.bool()[:, None, None], query_length=0)

    def decoder_ids(self, input_ids: Tensor) -> Tensor:
        """Return ids with `[DEC]` in the place of `[CLS]`."""
        ids = input_ids.clone()
        ids[:, 0] = self.tokenizer.bos_token_id
        return ids

    # Losses

    def own_pairs(self, batch: int) -> Tensor:
        """Return `(B, G)` bool: where a row meets its own partner."""
        rank, size = _ranks()
        return torch.eye(size * batch, dtype=torch.bool, device=self.device)[rank * batch :][:batch]

    def same_images(self, image_id: Tensor) -> Tensor:
        """Return `(B, G)` bool: which pairs are of one image, by `image_id` `(B,)`."""
        return image_id.view(-1, 1) == _gather(image_id).view(1, -1)

    def similarities(self, queries: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return image-to-text and text-to-image similarities over `temp`, each `(B, G)`.

        A pair's similarity is that of the image's best query. Other ranks' vectors, and the
        side that is not named first, get no gradient, as in BLIP-2.

        Args:
            queries: `(B, Q, d)`.
            text: `(B, d)`, outputs of `[CLS]`.
        """
        image = F.normalize(self.vision_proj(queries).float(), dim=-1)  # (B, Q, e)
        words = F.normalize(self.text_proj(text).float(), dim=-1)  # (B, e)
        all_images = _gather(image.detach())
        all_words = _gather(words.detach())
        i2t = torch.einsum("bqe,ge->bgq", image, all_words).amax(dim=-1)
        t2i = torch.einsum("be,gqe->bgq", words, all_images).amax(dim=-1)
        return i2t / self.temp, t2i / self.temp

    def matching_loss(
        self, image_embeds: Tensor, input_ids: Tensor, mask: Tensor, negatives: Negatives
    ) -> Tensor:
        """Cross entropy over true pairs, texts with a wrong image, images with a wrong text."""
        logits, labels = self.matching_pairs(image_embeds, input_ids, mask, negatives)
        return F.cross_entropy(logits, labels, ignore_index=IGNORED)

    def matching_pairs(
        self, image_embeds: Tensor, input_ids: Tensor, mask: Tensor, negatives: Negatives
    ) -> tuple[Tensor, Tensor]:
        """Return logits `(3B, 2)` and labels `(3B,)` of the pairs of `matching_loss`."""
        batch, start = len(input_ids), _ranks()[0] * len(input_ids)
        all_images = _gather(image_embeds)
        all_ids, all_masks = _gather(input_ids), _gather(mask)
        own = list(range(start, start + batch))
        rows = torch.cat([self.to_device(own * 2), negatives.texts])
        queries = self.fuse(
            all_images, all_ids[rows], all_masks[rows], own + negatives.images.tolist() + own
        )
        wrong = torch.cat([negatives.has_image, negatives.has_text])
        labels = torch.where(wrong, 0, IGNORED)
        return self.match_logits(queries), torch.cat([labels.new_ones(batch), labels])

    def caption_logits(self, text_hidden: Tensor) -> Tensor:
        """Return next-token logits `(B, L, words)`, float32; the table of words is the decoder."""
        return self.lm_head(text_hidden, self.qformer.embeddings.word_embeddings.weight)

    def caption_loss(self, text_hidden: Tensor, decoder_ids: Tensor, mask: Tensor) -> Tensor:
        """Smoothed cross entropy of the next token, averaged over the tokens that `mask` keeps."""
        logits = self.caption_logits(text_hidden[:, :-1])
        labels = decoder_ids.masked_fill(~mask.bool(), IGNORED)[:, 1:]
        return F.cross_entropy(
            logits.flatten(0, 1),
            labels.flatten(),
            ignore_index=IGNORED,
            label_smoothing=SMOOTHING,
        )

    # Scoring

    @torch.no_grad()
    def score(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return how well texts fit their images, `itm` and `itc`, each `(N,)` float32.

        `itm` is the match class's mean logit, `itc` the cosine of the text and the image's best
        query, from -1 to 1. Each image is encoded once, and so are its keys and values.

        Args:
            samples: as in `predict`: P images, N texts, `image_index`.

        Example:
            >>> samples = {"image": image, "text_input": ["a dog", "a cat"], "image_index": [0, 0]}
            >>> student.score(samples)["itc"]
            tensor([0.41, 0.18])
        """
        image_embeds = self.image_embeds(self.vision_features(samples))
        texts = list(samples["text_input"])
        index = host_index(samples.get("image_index"), len(texts), len(image_embeds))
        input_ids, mask = self.tokenize(texts)
        matching = self.match_logits(self.fuse(image_embeds, input_ids, mask, index))[:, 1]
        image = F.normalize(self.vision_proj(self.image_pass(image_embeds)).float(), dim=-1)
        most = self.config.max_texts_per_pass
        parts = [
            self.text_pass(self.to_device(ids), self.to_device(visible))[:, 0]
            for ids, visible in zip(input_ids.split(most), mask.split(most), strict=True)
        ]
        words = F.normalize(self.text_proj(torch.cat(parts)).float(), dim=-1)  # (N, e)
        queries = image[self.to_device(index)]  # (N, Q, e)
        contrast = torch.einsum("nqe,ne->nq", queries, words).amax(dim=-1)
        return {"itm": matching, "itc": contrast}

    @torch.no_grad()
    def compute_itm(self, image_inputs: Tensor, text_ids: Tensor, text_atts: Tensor) -> Tensor:
        """Return the match class's logit of pairs, `(B,)`, without softmax.

        Args:
            image_inputs: `(B, T, D)`, what `image_embeds` returns.
            text_ids, text_atts: `(B, L)`.
        """
        index = list(range(len(text_ids)))
        return self.match_logits(self.fuse(image_inputs, text_ids, text_atts, index))[:, 1]

    @torch.no_grad()
    def forward_image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return query outputs `(B, Q, d)` and `image_embeds` `(B, T, D)` of images."""
        image_embeds = self.image_embeds(self.vision_features({"image": image}))
        return self.image_pass(image_embeds), image_embeds

    @torch.no_grad()
    def forward_text(self, text_ids: Tensor, text_atts: Tensor) -> Tensor:
        """Return outputs of `[CLS]`, `(B, d)`, of texts alone."""
        return self.text_pass(self.to_device(text_ids), self.to_device(text_atts))[:, 0]

    @torch.no_grad()
    def extract_features(
        self,
        samples: Mapping[str, Any],
        mode: Literal["image", "text", "multimodal"] = "multimodal",
    ) -> Blip2Features:
        """Return features of images, texts (cut at the last position only) or pairs."""
        if mode not in ("image", "text", "multimodal"):
            raise ConfigError(f"mode is {mode!r}; use image, text or multimodal")
        if mode == "image":
            hidden = self.image_pass(self.image_embeds(self.vision_features(samples)))
            projected = F.normalize(self.vision_proj(hidden).float(), dim=-1)
            return Blip2Features(image_embeds=hidden, image_embeds_proj=projected)
        longest = self.config.qformer.max_position_embeddings
        input_ids, mask = self.tokenize(list(samples["text_input"]), longest)
        if mode == "text":
            hidden = self.text_pass(self.to_device(input_ids), self.to_device(mask))
            projected = F.normalize(self.text_proj(hidden).float(), dim=-1)
            return Blip2Features(text_embeds=hidden, text_embeds_proj=projected)
        image_embeds = self.image_embeds(self.vision_features(samples))
        index = list(range(len(input_ids)))
        return Blip2Features(multimodal_embeds=self.fuse(image_embeds, input_ids, mask, index))


def contrastive_targets(
    own: Tensor, same: Tensor, same_image: Literal["positives", "masked", "negatives"]
) -> tuple[Tensor, Tensor]:
    """Return positives and which pairs are included, each `(B, G)` bool.

    Args:
        own: `(B, G)` bool, a row's own partner.
        same: `(B, G)` bool, partners of the same image, the own one included.
        same_image: `Stage1Config.same_image`.
    """
    everything = torch.ones_like(own)
    if same_image == "positives":
        return same, everything
    return own, everything if same_image == "negatives" else own | ~same


def contrastive_loss(i2t: Tensor, t2i: Tensor, positives: Tensor, included: Tensor) -> Tensor:
    """Smoothed cross entropy of both directions, averaged.

    Args:
        i2t, t2i: `(B, G)`.
        positives: `(B, G)` bool; a row's target is spread evenly over them.
        included: `(B, G)` bool; the others take no part, in the smoothing neither.
    """
    target = positives.float() / positives.sum(dim=1, keepdim=True)
    target = (1 - SMOOTHING) * target + SMOOTHING * included / included.sum(dim=1, keepdim=True)
    hidden = torch.finfo(i2t.dtype).min
    parts = [F.cross_entropy(s.masked_fill(~included, hidden), target) for s in (i2t, t2i)]
    return (parts[0] + parts[1]) / 2


@torch.no_grad()
def draw_negatives(i2t: Tensor, t2i: Tensor, same: Tensor) -> Negatives:
    """Draw wrong partners with probability proportional to the exponent of their similarity.

    Args:
        i2t, t2i: `(B, G)`.
        same: `(B, G)` bool, partners of the same image: never drawn unless a row has nothing
            else, and then the row is marked as having none.
    """
    has_any = (~same).any(dim=1)
    weights = [s.masked_fill(same, -10000.0).softmax(dim=1) for s in (t2i, i2t)]
    images, texts = (torch.multinomial(w, 1).squeeze(1) for w in weights)
    return Negatives(images=images, texts=texts, has_image=has_any, has_text=has_any)


def _ranks() -> tuple[int, int]:
    """Return this process's rank and the number of processes that have joined."""
    return (dist.rank(), dist.world_size()) if dist.has_joined() else (0, 1)


def _gather(tensor: Tensor) -> Tensor:
    """Return the rows of all ranks, `(G, ...)` of `(B, ...)`, with gradients if it has any."""
    return tensor if _ranks()[1] == 1 else _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """The rows of all ranks; each rank's gradient is summed over the losses of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return `(G, ...)`, such as `(G, T, D)`, of this rank's `(B, ...)`."""
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(dist.world_size())]
        torch_dist.all_gather(parts, tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient of this rank's rows, `(B, ...)`, from that of all, `(G, ...)`."""
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch_dist.all_reduce(total)
        return total.chunk(dist.world_size())[dist.rank()]
