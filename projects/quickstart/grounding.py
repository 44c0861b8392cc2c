"""Words tied to places: tells every word of a text where the image shows what it names.

BLIP-2's Q-Former learns from 129M images what a word such as `banana` or `[1]` points at. A
small one does not, so it is taught first: boxes of words, where records carry them, tie a word's
embedding to the image tokens inside them. What a word points at is then added to its embedding:
which of the numbered regions it describes, and where it is.

Shapes: N texts of L words, P images, T = grid * grid tokens of width D, W words, R region
numbers, d Q-Former width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.errors import ConfigError

WordBoxes = Mapping[str, Sequence[Sequence[float]]]
COVERED = 0.4  # a token belongs to a box that covers this share of its cell, or nearly most
START_SCALE, START_BIAS = 16.0, -6.0  # of the cosine; most tokens belong to no word


class Grounding(nn.Module):
    """Compares words and image tokens in the space of the Q-Former's word embeddings.

    Args:
        image_width: D.
        hidden_size: d.
        num_tokens: T, a square number.
        num_regions: R.

    Raises:
        ConfigError: the tokens are no square grid.
    """

    centres: Tensor

    def __init__(
        self, image_width: int, hidden_size: int, num_tokens: int, *, num_regions: int
    ) -> None:
        super().__init__()
        self.grid = math.isqrt(num_tokens)
        if self.grid**2 != num_tokens:
            raise ConfigError(f"model.grounding needs a square grid of tokens, not {num_tokens}")
        self.project = nn.Linear(image_width, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.bias = nn.Parameter(torch.tensor(START_BIAS))
        self.region = nn.Linear(num_regions + 1, hidden_size, bias=False)
        self.place = nn.Linear(4, hidden_size, bias=False)
        nn.init.normal_(self.place.weight, std=0.5)
        centres = (torch.arange(self.grid) + 0.5) / self.grid * 2 - 1
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1).reshape(-1, 2)  # (T, 2), -1 left or top
        self.register_buffer("centres", grid, persistent=False)

    def embed_tokens(self, features: Tensor) -> Tensor:
        """Return tokens in the words' space, `(P, T, D)` -> `(P, T, d)`."""
        return self.norm(self.project(features))

    def align(self, words: Tensor, tokens: Tensor) -> Tensor:
        """Return logits `(..., W, T)` that words `(..., W, d)` name tokens `(..., T, d)`."""
        cosine = F.normalize(words, dim=-1) @ F.normalize(tokens, dim=-1).transpose(-1, -2)
        return cosine * self.log_scale.exp() + self.bias

    def forward(self, words: Tensor, tokens: Tensor, numbers: Tensor, mentions: Tensor) -> Tensor:
        """Return what is added to the words' embeddings, `(N, L, d)`.

        That is which regions a word describes, whether one of those is mentioned in the text, and
        where the word points: its place, and its place seen from the region mentioned first.

        Args:
            words: `(N, L, d)`, word embeddings.
            tokens: `(N, T, d)`, of every text's image.
            numbers: `(R, d)`, word embeddings of the region numbers `0`, `1`, ...
            mentions: `(N, L, R)` of 0 and 1, which word is which region's number.
        """
        named = self.align(words, tokens)  # (N, L, T)
        regions = self.align(numbers, tokens).softmax(dim=-1)  # (N, R, T)
        in_region = (named @ regions.transpose(1, 2)).sigmoid()  # (N, L, R)
        mentioned = mentions.amax(dim=1, keepdim=True)  # (N, 1, R)
        in_mentioned = (in_region * mentioned).amax(dim=-1, keepdim=True)  # (N, L, 1)
        # near 0 for "what" or "is"
        presence = named.amax(dim=-1, keepdim=True).sigmoid()  # (N, L, 1)
        place = named.softmax(dim=-1) @ self.centres  # (N, L, 2)
        first = mentions.amax(dim=-1).argmax(dim=1)  # (N,), the first number's position
        anchor = mentions[torch.arange(len(mentions)), first][:, None]  # (N, 1, R), 0 if none
        seen_from = anchor @ (regions @ self.centres)  # (N, 1, 2)
        places = presence * torch.cat([place, place - seen_from], dim=-1)  # (N, L, 4)
        return self.region(torch.cat([in_region, in_mentioned], dim=-1)) + self.place(places)

    def loss(self, words: Tensor, tokens: Tensor, masks: Tensor, known: Tensor) -> Tensor:
        """Sum over tokens of the binary cross-entropy of "this word names this token", a mean word.

        Args:
            words: `(W, d)`.
            tokens: `(P, T, d)`.
            masks: `(P, W, T)`, the tokens a word names.
            known: `(P, W)`, whether the image's record speaks of the word.
        """
        logits = self.align(words, tokens)
        wrong = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").sum(dim=-1)
        return (wrong * known).sum() / known.sum().clamp(min=1)

    def masks(self, word_boxes: Sequence[WordBoxes], words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Turn boxes into the masks of `loss`, `(P, W, T)` and `(P, W)`.

        Args:
            word_boxes: for each image: word -> boxes `(x1, y1, x2, y2)` as shares of the image.
                No box says that nothing there is named so; an absent word that nobody knows.
            words: the W words.
        """
        position = {word: i for i, word in enumerate(words)}
        known = torch.zeros(len(word_boxes), len(words))
        masks = torch.zeros(len(word_boxes), len(words), self.grid, self.grid)
        for image, boxes_of in enumerate(word_boxes):
            for word, boxes in boxes_of.items():
                known[image, position[word]] = 1.0
                for box in boxes:
                    share = box_coverage(box, self.grid)
                    least = min(COVERED, 0.7 * float(share.max()))  # a thin box fills no cell
                    masks[image, position[word]][share >= least] = 1.0
        return masks.flatten(2), known


def box_coverage(box: Sequence[float], grid: int) -> Tensor:
    """Share of each cell, `(grid, grid)` row by row, that a box in shares of the image covers."""
    x1, y1, x2, y2 = (float(value) * grid for value in box[:4])
    edges = torch.arange(grid, dtype=torch.float32)

    def overlap(start: float, end: float) -> Tensor:
        return ((edges + 1).clamp(max=end) - edges.clamp(min=start)).clamp(min=0)

    return overlap(y1, y2)[:, None] * overlap(x1, x2)[None]
