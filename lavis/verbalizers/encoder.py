"""Texts and images in one space, by any dual encoder of transformers: CLIP, SigLIP, ALIGN.

Shapes: N images, V phrases of a vocabulary, E width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lavis.common.errors import ConfigError
from lavis.common.pretrained import load_with_processor
from lavis.verbalizers.config import EncoderOptions


class DualEncoder:
    """A frozen dual encoder, its tokenizer and its image processing."""

    def __init__(self, config: EncoderOptions, device: str) -> None:
        from transformers import AutoModel

        refusal = f"cannot load '{config.model}' as a dual encoder"
        model, self.processor = load_with_processor(
            AutoModel,
            config.model,
            refusal=refusal,
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
        )
        if not hasattr(model, "get_text_features") or not hasattr(model, "logit_scale"):
            raise ConfigError(
                f"'{config.model}' is a {type(model).__name__}, not a dual encoder such as CLIP"
            )
        self.model = model.to(device).eval().requires_grad_(False)
        self.config = config
        kind = str(model.config.model_type)
        self.is_sigmoid = kind.startswith("siglip")
        text_config = getattr(model.config, "text_config", model.config)
        self.limit = getattr(text_config, "max_position_embeddings", None)  # tokens of a text

    @torch.inference_mode()
    def texts(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return unit vectors `(V, E)`; each is the mean over the templates' unit vectors."""
        sums: list[Tensor] = []
        size = self.config.batch_size
        # SigLIP saw every text at the same length; shorter padding changes its vectors.
        padding: Any = "max_length" if self.is_sigmoid else True
        for start in range(0, len(phrases), size):
            part = phrases[start : start + size]
            total = torch.zeros(())
            for template in templates:
                texts = [template.replace("{}", phrase) for phrase in part]
                inputs = self.processor(
                    text=texts,
                    padding=padding,
                    truncation=True,
                    max_length=self.limit,
                    return_tensors="pt",
                ).to(self.model.device)
                total = total + _unit(self.model.get_text_features(**inputs)).cpu()
            sums.append(F.normalize(total / len(templates), dim=-1))
        return torch.cat(sums)

    @torch.inference_mode()
    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors `(N, E)`."""
        size = self.config.batch_size
        parts = []
        for start in range(0, len(images), size):
            inputs = self.processor(images=list(images[start : start + size]), return_tensors="pt")
            pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
            parts.append(_unit(self.model.get_image_features(pixel_values=pixels)).cpu())
        return torch.cat(parts)

    def scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return `(N, V)`: softmax over the vocabulary, sigmoid of each, or the cosine."""
        cosine = images @ texts.T
        how = self.config.score
        if how == "auto":
            how = "sigmoid" if self.is_sigmoid else "softmax"
        if how == "similarity":
            return cosine
        logits = cosine * self.model.logit_scale.exp().float().cpu()
        if how == "softmax":
            return logits.softmax(dim=-1)
        bias = getattr(self.model, "logit_bias", None)
        return (logits if bias is None else logits + bias.float().cpu()).sigmoid()


def best(
    scores: Tensor, phrases: Sequence[str], top_k: int, min_score: float | None
) -> list[list[dict[str, Any]]]:
    """Return the best phrases of each row of `(N, V)`, best first, as `{"text", "score"}`.

    Scores are rounded to six digits: beyond them they depend on the batch.
    """
    values, places = scores.topk(min(top_k, len(phrases)), dim=-1)
    found = []
    for row_values, row_places in zip(values.tolist(), places.tolist(), strict=True):
        found.append(
            [
                {"text": phrases[place], "score": round(value, 6)}
                for value, place in zip(row_values, row_places, strict=True)
                if min_score is None or value >= min_score
            ]
        )
    return found


def _unit(output: Any) -> Tensor:
    """Normalise features, which newer versions of transformers return inside an output."""
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1)
