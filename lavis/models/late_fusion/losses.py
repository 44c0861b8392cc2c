"""Cross entropy behind a frozen head, without logits of all rows at the same time.

The head is not trained, so the gradient of each chunk's rows is known as soon as the chunk's loss
is: it is kept (n x H), the logits (c x V) are not. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ChunkLoss = Callable[[Tensor, slice], Tensor]


class _FrozenHeadLoss(torch.autograd.Function):
    """Sum of `loss(rows[chunk], chunk)` over chunks; backward hands out the kept gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, loss: ChunkLoss, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=rows.device)
        gradient = torch.empty_like(rows)
        for start in range(0, len(rows), chunk):
            part = slice(start, start + chunk)
            with torch.enable_grad():
                leaf = rows[part].detach().requires_grad_()
                value = loss(leaf, part).sum()
                (gradient[part],) = torch.autograd.grad(value, leaf)
            total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None


def chunked_loss(rows: Tensor, loss: ChunkLoss, chunk: int) -> Tensor:
    """Return the sum of losses of rows, a float32 scalar.

    Args:
        rows: `(n, ...)`, hidden states.
        loss: rows of a chunk and which ones they are -> their losses `(c,)`; all that it uses
            beside the rows is frozen.
        chunk: rows at the same time.
    """
    if rows.requires_grad and torch.is_grad_enabled():
        return _FrozenHeadLoss.apply(rows, loss, chunk)  # type: ignore[no-any-return]
    total = torch.zeros((), dtype=torch.float32, device=rows.device)
    for start in range(0, len(rows), chunk):
        part = slice(start, start + chunk)
        total += loss(rows[part], part).sum()
    return total
