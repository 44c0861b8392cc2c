"""Cross entropy behind a frozen head, without logits of all rows at the same time.

The head is not trained, so the gradient of each chunk's rows is known as soon as the chunk's loss
is: it is kept (n x H), the logits (c x V) are not. Nothing is computed twice. Behind one plain
matrix the gradient is written out, in one buffer that all chunks share; behind any other head it
comes from autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ChunkLoss = Callable[[Tensor, slice], Tensor]
LinearHead = tuple[Tensor, Tensor | None]  # weight (V, H) and bias (V,)


class _FrozenHeadLoss(torch.autograd.Function):
    """Sum of `loss(rows[chunk], chunk)` over chunks; backward hands out the kept gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, loss: ChunkLoss, chunk: int) -> Tensor:
        """Return the sum of the losses of rows `(n, H)` or `(n, K + 1, H)`, a scalar."""
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


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross entropies behind a frozen matrix; backward hands out the kept gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, head: LinearHead, targets: Tensor, chunk: int) -> Tensor:
        """Return the sum over rows `(n, H)` with targets `(n,)`, a scalar."""
        gradient = torch.empty_like(rows)
        total = _cross_entropy(rows, head, targets, chunk, gradient)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype), None, None, None


def linear_cross_entropy(rows: Tensor, head: LinearHead, targets: Tensor, chunk: int) -> Tensor:
    """Return the sum of `cross_entropy(rows @ weight.T + bias, targets)`, a float32 scalar.

    Args:
        rows: `(n, H)`.
        head: frozen. Under autocast the products are in its type, as those of a layer are.
        targets: `(n,)`, ids below V.
        chunk: rows whose logits exist at the same time.
    """
    weight, bias = head
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        weight = weight.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        if rows.requires_grad and torch.is_grad_enabled():
            return _LinearCrossEntropy.apply(  # type: ignore[no-any-return]
                rows, (weight, bias), targets, chunk
            )
        return _cross_entropy(rows, (weight, bias), targets, chunk, None)


def _cross_entropy(
    rows: Tensor, head: LinearHead, targets: Tensor, chunk: int, gradient: Tensor | None
) -> Tensor:
    """Return the sum; fill `gradient` `(n, H)`: `(softmax(logits) - one_hot(targets)) @ weight`."""
    weight, bias = head
    total = torch.zeros((), dtype=torch.float32, device=rows.device)
    buffer = weight.new_empty((min(chunk, len(rows)), len(weight)))
    for start in range(0, len(rows), chunk):
        part, at = rows[start : start + chunk], targets[start : start + chunk]
        raw = buffer[: len(part)]
        logits = torch.mm(part.to(weight.dtype), weight.t(), out=raw).float()
        if bias is not None:
            logits += bias
        target_logits = logits.gather(-1, at[:, None])
        top = logits.amax(dim=-1, keepdim=True)
        powers = logits.sub_(top).exp_()
        norm = powers.sum(dim=-1, keepdim=True)
        total += (norm.log() + top - target_logits).sum()
        if gradient is not None:
            mean = torch.mm(powers.to(weight.dtype), weight).float() / norm
            gradient[start : start + chunk] = mean - weight[at]
    return total


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
