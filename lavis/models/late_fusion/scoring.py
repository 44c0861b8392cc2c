"""Losses and probabilities at the requested positions, a chunk of rows at a time.

Shapes: B texts, L tokens, K images of a text, R positions, H width, V vocabulary, C candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis.common.errors import ConfigError
from lavis.models.base import IGNORED
from lavis.models.late_fusion.language import EncodedTexts, pick
from lavis.models.late_fusion.losses import chunked_loss, linear_cross_entropy
from lavis.models.late_fusion.mixing import Mixing, mix_probs

if TYPE_CHECKING:
    from lavis.models.late_fusion.fusion import FusionBase, ImageStates


def fusion_loss(
    model: FusionBase,
    samples: Mapping[str, Any],
    text: EncodedTexts,
    images: ImageStates | None,
    image_index: Tensor,
    labels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the mean cross entropy and the number of targets; see `LateFusion.forward`."""
    scores = samples.get("scores")
    mixes = images is None or scores is not None
    source, valid = _targets(model, text, labels, needs_text=mixes)
    vocabulary = samples.get("loss_vocabulary")
    if vocabulary is not None:
        vocabulary = vocabulary.to(labels.device)
        labels, known = _among(labels, vocabulary)
        valid = valid & known
    used = valid.any(dim=0)  # columns in which any text has a target
    used[0] |= ~used.any()  # the library's layers want a row
    source, valid, labels = source[:, used], valid[:, used], labels[:, used]
    present = image_index >= 0
    if images is None:
        rows = pick(text.hidden, source)[valid]
        return _own_loss(model, rows, labels[valid], vocabulary)
    fused = model.fuse(text, images, image_index, source)  # (B, K, R, H)
    if not mixes:
        each = valid[:, None] & present[..., None]  # (B, K, R)
        return _own_loss(model, fused[each], labels[:, None].expand(each.shape)[each], vocabulary)
    plain = pick(text.hidden, source)[:, None].to(fused.dtype)
    stacked = torch.cat([fused, plain], dim=1).transpose(1, 2)[valid]  # (n, K + 1, H)
    of_row = torch.arange(len(labels), device=labels.device)[:, None].expand(valid.shape)[valid]
    return _mixed_loss(model, stacked, labels[valid], vocabulary, (scores, present), of_row)


def _own_loss(
    model: FusionBase, rows: Tensor, targets: Tensor, vocabulary: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of rows `(n, H)`, and n."""
    chunk = model.config.loss_chunk
    head = model.language.linear_head(vocabulary)
    if head is not None:
        return _mean(linear_cross_entropy(rows, head, targets, chunk), len(rows))

    def own_loss(rows: Tensor, part: slice) -> Tensor:
        logits = model.logits(rows, vocabulary)
        return F.cross_entropy(logits, targets[part], reduction="none")

    return _mean(chunked_loss(rows, own_loss, chunk), len(rows))


def _mixed_loss(
    model: FusionBase,
    stacked: Tensor,
    targets: Tensor,
    vocabulary: Tensor | None,
    images: tuple[Tensor | None, Tensor],
    of_row: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of mixed predictions, and their number.

    Args:
        stacked: `(n, K + 1, H)`, of the images and the text alone.
        images: their scores and which there are, `(B, K)`.
        of_row: `(n,)`, the text of each row.
    """
    mixing = Mixing.of(model.config)
    weights, present = mixing.mixing_weights(*images)
    linear = mixing.kind == "logits" and not model.language.changes_logits
    if linear and weights is not None:  # a linear head of mixed rows gives the mixed logits
        return _own_loss(model, _mix_rows(stacked, weights[of_row]), targets, vocabulary)

    def mixed_loss(rows: Tensor, part: slice) -> Tensor:
        logits = model.logits(rows, vocabulary)
        at = of_row[part]
        log_probs = mixing.mix(
            image_logits=logits[:, :-1],
            text_logits=logits[:, -1],
            weights=None if weights is None else weights[at],
            present=present[at],
        )
        return F.nll_loss(log_probs, targets[part], reduction="none")

    size = max(1, model.config.loss_chunk // stacked.shape[1])
    return _mean(chunked_loss(stacked, mixed_loss, size), len(stacked))


def _mean(total: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return total / max(count, 1), torch.tensor(count, device=total.device)


def _targets(
    model: FusionBase, text: EncodedTexts, labels: Tensor, *, needs_text: bool
) -> tuple[Tensor, Tensor]:
    """Return which row predicts each token, -1 for the last patch, and which tokens count."""
    labelled = labels != IGNORED
    if model.language.is_masked:
        rows = torch.arange(labels.shape[1], device=labels.device)
        return rows.expand(labels.shape), labelled
    source = text.previous()
    valid = labelled & text.mask & ~text.replaced
    if needs_text:
        valid = valid & (source >= 0)
    return source, valid


def _among(labels: Tensor, vocabulary: Tensor) -> tuple[Tensor, Tensor]:
    """Return places of labels in a sorted vocabulary, and which are in it."""
    if bool((vocabulary[1:] <= vocabulary[:-1]).any()):
        raise ConfigError("loss_vocabulary must be sorted, each id once")
    place = torch.searchsorted(vocabulary, labels.contiguous()).clamp(max=len(vocabulary) - 1)
    return place, vocabulary[place] == labels


def predict_columns(
    model: FusionBase,
    samples: Mapping[str, Any],
    text: EncodedTexts,
    images: ImageStates | None,
    image_index: Tensor,
    columns: Mapping[str, Mixing] | None,
    *,
    details: bool,
) -> dict[str, Tensor]:
    """Return log-probabilities of each column; see `LateFusion.predict`."""
    of, positions = samples.get("text_index"), samples.get("positions")
    of = None if of is None else of.to(text.mask.device)
    if positions is None:
        last = text.last()[:, None]
        positions = last if of is None else last[of]
    positions = positions.to(text.mask.device)
    ways = columns if columns is not None else {"": Mixing.of(model.config)}
    rows = pick(text.hidden, positions, of)[:, None]  # (B, 1, R, H)
    count = image_index.shape[1] if images is not None else 0
    if images is not None:
        fused = model.fuse(text, images, image_index, positions, of)
        rows = torch.cat([fused, rows.to(fused.dtype)], dim=1)
    batch, num_positions = positions.shape
    rows = rows.transpose(1, 2).flatten(0, 1)  # (B R, K + 1, H)
    ids = _candidates(samples.get("token_ids"), batch, num_positions, rows.device)
    present = (image_index >= 0)[:, :count]
    scores = samples.get("scores") if count else None
    weights = {
        name: tuple(
            None if part is None else part.repeat_interleave(num_positions, dim=0)
            for part in way.mixing_weights(scores, present)
        )
        for name, way in ways.items()
    }
    outputs = {}
    for name, log_probs in _predict(model, rows, ways, weights, ids, details=details).items():
        whole = log_probs.unflatten(0, (batch, num_positions))
        outputs[name] = whole.transpose(1, 2) if name == "image_log_probs" else whole
    return outputs


def _key(name: str) -> str:
    return f"log_probs.{name}" if name else "log_probs"


def _predict(
    model: FusionBase,
    rows: Tensor,
    ways: Mapping[str, Mixing],
    weights: Mapping[str, tuple[Any, ...]],
    ids: Tensor | None,
    *,
    details: bool,
) -> dict[str, Tensor]:
    """Return log-probabilities by output name; the head runs once for all of them.

    A linear head of mixed hidden states gives the mixed logits, one row instead of K + 1;
    probabilities of known weights mix token by token; all else needs the whole vocabulary.

    Args:
        rows: `(n, K + 1, H)`.
        weights: weights and which images there are, each `(n, K)`.
        ids: `(n, C)`; None: the whole vocabulary.
    """
    by_row: dict[str, Tensor] = {}
    by_token, by_logits = [], []
    for name, way in ways.items():
        if weights[name][0] is None or (way.kind == "logits" and model.language.changes_logits):
            by_logits.append(name)
        elif way.kind == "logits":
            by_row[name] = _mix_rows(rows, weights[name][0])[:, None].to(rows.dtype)
        else:
            by_token.append(name)
    count = rows.shape[1] if details or by_token or by_logits else 0
    hidden = torch.cat([rows[:, :count], *by_row.values()], dim=1)  # (n, S, H)
    streams = ids is not None and model.language.has_plain_head and not by_logits
    size = len(rows) if streams else max(1, model.config.loss_chunk // hidden.shape[1])
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        tokens = None if ids is None else ids[part, None].expand(-1, hidden.shape[1], -1)
        if streams and tokens is not None:
            log_probs = model.language.requested_log_probs(hidden[part], tokens)
        else:
            logits = model.logits(hidden[part])
            is_needed = details or by_token or by_row
            log_probs = _normalised(logits, tokens) if is_needed else logits
        images, text = log_probs[:, : count - 1], log_probs[:, count - 1]
        for name in by_token:
            parts[_key(name)].append(mix_probs(images, text, weights[name][0][part]))
        for name in by_logits:
            known, present = weights[name]
            mixed = ways[name].mix(
                image_logits=logits[:, : count - 1],
                text_logits=logits[:, count - 1],
                weights=None if known is None else known[part],
                present=present[part],
            )
            parts[_key(name)].append(mixed if ids is None else mixed.gather(-1, ids[part]))
        for place, name in enumerate(by_row, start=count):
            parts[_key(name)].append(log_probs[:, place])
        if details:
            parts["text_log_probs"].append(text)
            parts["image_log_probs"].append(images)
    return {name: torch.cat(pieces) for name, pieces in parts.items()}


def _normalised(logits: Tensor, ids: Tensor | None) -> Tensor:
    """Return log-probabilities `(c, S, V)`, or those of `ids` `(c, S, C)` alone."""
    if ids is None:
        return logits.log_softmax(dim=-1)
    return logits.gather(-1, ids) - logits.logsumexp(dim=-1, keepdim=True)


def _mix_rows(rows: Tensor, weights: Tensor) -> Tensor:
    """Return `sum_i a_i h_i + (1 - sum_i a_i) h_0` for weights a, `(c, H)` float32."""
    rest = 1 - weights.sum(dim=-1, keepdim=True)
    return (torch.cat([weights, rest], dim=-1)[..., None] * rows.float()).sum(dim=1)


def _candidates(
    ids: Tensor | None, batch: int, num_positions: int, device: torch.device
) -> Tensor | None:
    """Return candidate ids as `(B R, C)`."""
    if ids is None:
        return None
    ids = ids.to(device)
    if ids.ndim == 1:
        ids = ids.expand(batch, -1)
    if ids.ndim == 2:
        ids = ids[:, None].expand(-1, num_positions, -1)
    return ids.flatten(0, 1)
