"""Mixing what each image predicts with what the text alone predicts.

A prediction is `sum_i a_i * p_i + (1 - sum_i a_i) * p_0`, with p_i of image i and p_0 of the text
alone; p are probabilities (`probs`) or, without being normalised, logits (`logits`). The mixing
weights a_i of K images follow from `weights`:

| weights | mixing weight of image i |
| --- | --- |
| `clip` | `w_i / K`, `w_i = m * s_i` (vLMIG; LaMI: eq. 2) |
| `clip_relative` | `w_i / K`, `w_i = m * s_i / max_j s_j`: the best image gets all of `m` |
| `mean` | `w / K`, `w = m`: plain averaging at m = 1, LaMI's `--no_clip_rescaling` at m = 0.5 |
| `entropy` | `softmax_i(-H(p_i))`, H in nats, at each position; the text alone has none |
| `max_confidence` | 1 for the image of the lowest H(p_i) at each position, 0 for the others |

s are scores of image and prompt (CLIP's, cosine in [0, 1]), m is `weight_multiplier`, and w is
kept in [0, 1] where `clamp` is set.

Shapes: B texts, K images, R positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis.common.errors import ConfigError

BY_SCORE = ("clip", "clip_relative", "mean")


@dataclass(frozen=True)
class Mixing:
    """One way of mixing, a column of a table of results.

    Attributes:
        kind: `logits` or `probs`.
        weights, multiplier, clamp: see the module.
        num_images: use the first images only (None: all); 0 is the text alone.
    """

    kind: str = "probs"
    weights: str = "clip"
    multiplier: float = 1.0
    clamp: bool = True
    num_images: int | None = None

    @classmethod
    def of(cls, config: Any) -> Mixing:
        """Return the mixing of a `LateFusionConfig`."""
        return cls(config.mix, config.weights, config.weight_multiplier, config.clamp_weights)

    def mixing_weights(
        self, scores: Tensor | None, present: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Return weights `(B, K)`, None where they follow from the predictions, and `present`.

        Args:
            scores: `(B, K)` or None.
            present: `(B, K)` bool; images beyond `num_images` become False in what is returned.
        """
        if self.num_images is not None:
            present = present.clone()
            present[:, self.num_images :] = False
        if not present.shape[1] or self.num_images == 0:
            return torch.zeros(present.shape, device=present.device), present
        if self.weights not in BY_SCORE:
            return None, present
        weights = image_weights(
            self.weights, scores, present, multiplier=self.multiplier, clamp=self.clamp
        )
        return weights / present.sum(dim=-1, keepdim=True).clamp(min=1), present

    def mix(
        self,
        *,
        image_logits: Tensor,
        text_logits: Tensor,
        weights: Tensor | None,
        present: Tensor,
    ) -> Tensor:
        """Return mixed log-probabilities `(..., V)` float32.

        Args:
            image_logits: `(..., K, V)`.
            text_logits: `(..., V)`.
            weights: `(..., K)`, None where they follow from the predictions.
            present: `(..., K)` bool.
        """
        text_logits, image_logits = text_logits.float(), image_logits.float()
        is_needed = weights is None or self.kind == "probs"
        log_probs = image_logits.log_softmax(dim=-1) if is_needed else image_logits
        if weights is None:
            weights = confidence_weights(self.weights, log_probs, present)
        if self.kind == "logits":
            return mix_logits(image_logits, text_logits, weights).log_softmax(dim=-1)
        return mix_probs(log_probs, text_logits.log_softmax(dim=-1), weights)


def image_weights(
    weights: str,
    scores: Tensor | None,
    present: Tensor,
    *,
    multiplier: float = 1.0,
    clamp: bool = True,
) -> Tensor:
    """Return the weight of each image against the text alone.

    Args:
        weights: `clip`, `clip_relative` or `mean`.
        scores: `(B, K)`; not needed for `mean`.
        present: `(B, K)` bool, False where a text has fewer than K images.

    Returns:
        `(B, K)` float32, 0 where no image is.

    Raises:
        ConfigError: scores are needed and not given.
    """
    if weights == "mean":
        raw = torch.full(present.shape, multiplier, device=present.device)
    else:
        if scores is None:
            raise ConfigError(
                f"model.weights: '{weights}' weighs images by their scores, and samples hold no "
                "'scores'; give them, or set model.weights=mean"
            )
        raw = scores.to(present.device).float()
        if weights == "clip_relative":
            best = raw.masked_fill(~present, 0).amax(dim=-1, keepdim=True)
            raw = raw / best.clamp(min=1e-6)
        raw = raw * multiplier
    if clamp:
        raw = raw.clamp(0, 1)
    return raw.masked_fill(~present, 0)


def confidence_weights(weights: str, log_probs: Tensor, present: Tensor) -> Tensor:
    """Return mixing weights that follow from how sure each image's prediction is.

    Args:
        weights: `entropy` or `max_confidence`.
        log_probs: `(..., K, V)` normalised.
        present: `(..., K)` bool.

    Returns:
        `(..., K)`, summing to 1, or to 0 where no image is.
    """
    entropy = torch.special.entr(log_probs.exp()).sum(dim=-1)  # (..., K), nats
    certainty = (-entropy).masked_fill(~present, -torch.inf)
    if weights == "entropy":
        return certainty.softmax(dim=-1).nan_to_num(0.0)  # NaN: no image at all
    best = certainty.argmax(dim=-1, keepdim=True)
    return torch.zeros_like(certainty).scatter(-1, best, 1.0) * present


def mix_logits(image_logits: Tensor, text_logits: Tensor, weights: Tensor) -> Tensor:
    """Mix logits, as the code of vLMIG and LaMI does: a normalised geometric mean.

    Args:
        image_logits: `(..., K, V)`.
        text_logits: `(..., V)`.
        weights: `(..., K)`; a sum above 1 gives the text a negative weight.

    Returns:
        `(..., V)` logits.
    """
    rest = 1 - weights.sum(dim=-1, keepdim=True)
    return (weights[..., None] * image_logits).sum(dim=-2) + rest * text_logits


def mix_probs(image_log_probs: Tensor, text_log_probs: Tensor, weights: Tensor) -> Tensor:
    """Mix probabilities, as the papers write (eq. 2).

    Args:
        image_log_probs: `(..., K, V)` normalised.
        text_log_probs: `(..., V)` normalised.
        weights: `(..., K)` in [0, 1], with a sum of at most 1.

    Returns:
        `(..., V)` log-probabilities.
    """
    rest = (1 - weights.sum(dim=-1, keepdim=True)).clamp(min=0)
    parts = torch.cat([image_log_probs, text_log_probs[..., None, :]], dim=-2)
    logs = torch.cat([weights, rest], dim=-1).log()  # weight 0: -inf, which adds nothing
    return torch.logsumexp(parts + logs[..., None], dim=-2)
