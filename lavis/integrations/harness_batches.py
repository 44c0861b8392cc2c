"""Continuations of the harness in batches: one row for those that differ in their last token only.

Shapes: B rows, L tokens, R target positions, M continuations of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Continuation:
    """A continuation to score.

    Attributes:
        tokens: context and continuation.
        count: tokens of the continuation, the last ones.
        text: what images are drawn from; without words there are none.
    """

    tokens: tuple[int, ...]
    count: int
    text: str


def padded(rows: Sequence[Sequence[int]], *, side: str) -> dict[str, Tensor]:
    """Return `input_ids` and `attention_mask`, `(B, L)`, padded on a side with zeros."""
    tokens = [torch.tensor(row, dtype=torch.long) for row in rows]
    ones = [torch.ones_like(row) for row in tokens]
    return {
        name: pad_sequence(part, batch_first=True, padding_side=side)
        for name, part in (("input_ids", tokens), ("attention_mask", ones))
    }


def target_tokens(
    owners: Sequence[Sequence[int]], continuations: Sequence[Continuation]
) -> tuple[Tensor, Tensor]:
    """Return the tokens to predict `(B, M, R)`, each request's last, and their numbers `(B, M)`.

    Args:
        owners: the numbers of the continuations that share each row.
    """
    positions = max(continuations[number].count for one in owners for number in one)
    wide = max(len(one) for one in owners)
    targets = torch.zeros(len(owners), wide, positions, dtype=torch.long)
    counts = torch.zeros(len(owners), wide, dtype=torch.long)
    for row, one in enumerate(owners):
        for place, number in enumerate(one):
            tokens, count = continuations[number].tokens, continuations[number].count
            targets[row, place, positions - count :] = torch.tensor(tokens[-count:])
            counts[row, place] = count
    return targets, counts


def text_before(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first stop text."""
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text
