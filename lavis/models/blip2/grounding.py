"""Words tied to places: image tokens for a small Q-Former, aligned with words, and region tokens.

A Q-Former of BLIP-2's size learns from 129M pictures which token a word such as `[1]` points at. A
small one does not, so it is told: where boxes of words are known, a loss ties a word's embedding to
the tokens inside them, and the places of the region numbers are given on as tokens of their own.

Shapes: P pictures, T = grid * grid tokens of width D, W words, R region numbers, d Q-Former width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.errors import ConfigError

Boxes = Sequence[Sequence[float]]
COVERED = 0.4  # a token belongs to a box that covers this share of its cell


class Grounding(nn.Module):
    """Projects tokens to the Q-Former's width, adds places, and finds what words point at.

    Args:
        image_width: D.
        hidden_size: d.
        num_tokens: T, a square number.
    """

    def __init__(self, image_width: int, hidden_size: int, num_tokens: int) -> None:
        super().__init__()
        self.grid = math.isqrt(num_tokens)
        if self.grid**2 != num_tokens:
            raise ConfigError(f"model.grounding needs a square grid of tokens, not {num_tokens}")
        self.project = nn.Linear(image_width, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.position = nn.Parameter(torch.randn(num_tokens, hidden_size) * 0.1)
        self.place = nn.Linear(2, hidden_size, bias=False)
        nn.init.normal_(self.place.weight, std=0.5)
        self.word_key = nn.Linear(hidden_size, hidden_size)
        self.token_key = nn.Linear(hidden_size, hidden_size)
        self.bias = nn.Parameter(torch.tensor(-3.0))  # most tokens belong to no word
        self.region_name = nn.Linear(hidden_size, hidden_size)
        centres = (torch.arange(self.grid) + 0.5) / self.grid * 2 - 1
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        self.register_buffer(
            "centres", torch.stack([columns, rows], dim=-1).reshape(-1, 2), persistent=False
        )

    def forward(self, features: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the Q-Former attends to, `(P, T + R, d)`, and the looks alone, `(P, T, d)`.

        Args:
            features: `(P, T, D)`, normalised tokens of the tower.
            numbers: `(R, d)`, word embeddings of the region numbers; R may be 0.
        """
        looks = self.norm(self.project(features))
        tokens = looks + self.position + self.place(self.centres)
        if len(numbers):
            weights = self.align(looks, numbers).softmax(dim=-1)  # (P, R, T)
            regions = weights @ tokens + self.region_name(numbers)
            tokens = torch.cat([tokens, regions], dim=1)
        return tokens, looks

    def align(self, looks: Tensor, words: Tensor) -> Tensor:
        """Return logits `(P, W, T)` that a word `(W, d)` describes a token `(P, T, d)`."""
        scale = self.word_key.out_features**0.5
        return self.word_key(words) @ self.token_key(looks).transpose(1, 2) / scale + self.bias

    def loss(self, looks: Tensor, words: Tensor, masks: Tensor, known: Tensor) -> Tensor:
        """Binary cross-entropy of the alignment over the words known of each picture.

        Args:
            masks: `(P, W, T)`, the tokens a word describes.
            known: `(P, W)`, whether the picture's record speaks of the word.
        """
        wrong = F.binary_cross_entropy_with_logits(
            self.align(looks, words),
            masks,
            reduction="none",
            pos_weight=torch.tensor(3.0, device=masks.device),  # described tokens are few
        ).mean(dim=-1)
        return (wrong * known).sum() / known.sum().clamp(min=1)

    def masks(
        self, word_boxes: Sequence[Mapping[str, Boxes]], words: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Turn boxes into the masks of `loss`.

        Args:
            word_boxes: per picture: word -> boxes `(x1, y1, x2, y2)` as shares of the picture; no
                box says that the word describes nothing there, an absent word that nobody knows.
            words: the W words.
        """
        position = {word: i for i, word in enumerate(words)}
        known = torch.zeros(len(word_boxes), len(words))
        masks = torch.zeros(len(word_boxes), len(words), self.grid, self.grid)
        for picture, boxes_of in enumerate(word_boxes):
            for word, boxes in boxes_of.items():
                known[picture, position[word]] = 1.0
                for box in boxes:
                    covered = box_coverage(box, self.grid) > COVERED
                    masks[picture, position[word]][covered] = 1.0
        return masks.flatten(2), known


def box_coverage(box: Sequence[float], grid: int) -> Tensor:
    """Share of each cell, `(grid, grid)` row by row, that a box in shares of the picture covers."""
    x1, y1, x2, y2 = (float(value) * grid for value in box[:4])
    edges = torch.arange(grid, dtype=torch.float32)

    def overlap(start: float, end: float) -> Tensor:
        return ((edges + 1).clamp(max=end) - edges.clamp(min=start)).clamp(min=0)

    return overlap(y1, y2)[:, None] * overlap(x1, x2)[None]
