"""Continuing texts token by token, with every cache in one object that the caller owns.

Shapes: B rows (texts, or beams of texts), T tokens so far, K images of a text, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.block import Keys, keys_of
from lavis.models.late_fusion.language import EncodedTexts
from lavis.models.late_fusion.mixing import Mixing

if TYPE_CHECKING:
    from lavis.models.late_fusion.fusion import FusionBase, ImageStates


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """Options of `generate`; see there."""

    attention_mask: Tensor | None = None
    pixel_values: Tensor | None = None
    vision_features: Tensor | None = None
    image_index: Tensor | None = None
    scores: Tensor | None = None
    mixing: Mixing | None = None
    max_new_tokens: int = 20
    num_beams: int = 1
    length_penalty: float = 1.0
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    stop: Callable[[Tensor], Tensor] | None = None
    use_cache: bool = True


@dataclass
class GenerationState:
    """State of one decoding call; nothing stays on the model.

    Attributes:
        ids, mask, keys: `(B, T)` tokens, where tokens are, and which the block may look at.
        past: the language model's cache; None recomputes everything each step (families without).
        text_keys: the block's keys of the text.
        images, image_index: images of each row, `(B, K)`; None for the text alone.
        weights, present: of the images, `(B, K)`.
        cache_length: tokens that the caches hold.
    """

    ids: Tensor
    mask: Tensor
    keys: Tensor
    past: Any
    text_keys: Keys | None
    images: ImageStates | None
    image_index: Tensor
    weights: Tensor | None
    present: Tensor
    mixing: Mixing = field(default_factory=Mixing)
    cache_length: int = 0

    def select(self, index: Tensor) -> None:
        """Keep the rows of `index` `(C,)`, in that order; rows may be kept more than once."""
        for name in ("ids", "mask", "keys", "image_index", "weights", "present"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[index])
        if self.past is not None:
            self.past.reorder_cache(index)
        if self.text_keys is not None:
            self.text_keys = self.text_keys.select(index)

    def append(self, tokens: Tensor) -> None:
        """Add a token `(B,)` to each row."""
        ones = self.mask.new_ones(len(tokens), 1)
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.mask = torch.cat([self.mask, ones], dim=1)
        self.keys = torch.cat([self.keys, ones], dim=1)


@torch.no_grad()
def start(model: FusionBase, input_ids: Tensor, options: DecodingOptions) -> GenerationState:
    """Return the first state, padding moved to the left; `ConfigError` if the model fills masks."""
    if model.language.is_masked:
        kind = model.language.config.model_type
        raise ConfigError(f"a '{kind}' fills masks and cannot generate; use a causal model")
    device = model.device
    ids = input_ids.to(device)
    mask = options.attention_mask
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.to(device).bool()
    order = mask.long().argsort(dim=1, stable=True)  # padding first, tokens as they are
    ids, mask = ids.gather(1, order), mask.gather(1, order)
    samples = {
        "pixel_values": options.pixel_values,
        "vision_features": options.vision_features,
        "image_index": options.image_index,
    }
    inputs = {name: value for name, value in samples.items() if value is not None}
    images, index = model.images_of(inputs, len(ids))
    mixing = options.mixing or Mixing.of(model.config)
    scores = options.scores if images is not None else None
    weights, present = mixing.mixing_weights(scores, index >= 0)
    states = model.text_states(ids, mask, torch.empty(0, device=device))
    past = model.language.new_cache() if options.use_cache else None
    return GenerationState(
        ids, mask, states.keys, past, None, images, index, weights, present, mixing
    )


@torch.no_grad()
def next_log_probs(model: FusionBase, state: GenerationState) -> Tensor:
    """Return log-probabilities of the next token, `(B, V)` float32; what is new is cached."""
    cache_length = state.cache_length
    images = state.images
    patches = images.rows.shape[1] if images is not None else 0
    model.check_length(state.ids.shape[1] + patches)
    hidden = model.language.hidden(state.ids[:, cache_length:], state.mask, state.past)
    state.cache_length = state.ids.shape[1] if state.past is not None else 0
    text_logits = model.logits(hidden[:, -1])
    if images is None:
        return text_logits.log_softmax(dim=-1)
    rows = model.fusion_input.text(hidden)
    places = model.places(state.keys, images)[:, cache_length:]
    new = keys_of(model.fusion_layer, rows, places)
    whole = new if state.text_keys is None else state.text_keys.then(new)
    if state.past is not None:
        state.text_keys = whole
    last = torch.full((len(rows), 1), state.ids.shape[1] - 1, device=rows.device)
    fused = model.fuse_rows(
        EncodedTexts(rows[:, -1:], state.mask, state.keys), whole, images, state.image_index, last
    )
    return state.mixing.mix(
        image_logits=model.logits(fused[:, :, 0]),
        text_logits=text_logits,
        weights=state.weights,
        present=state.present,
    )


def generate(model: FusionBase, input_ids: Tensor, options: DecodingOptions) -> Tensor:
    """Continue texts, each mixed over its images at every token.

    Args:
        model: a causal one.
        input_ids: `(B, L)` prompts, padded on either side.
        options: what else there is.

    Options:
        attention_mask: `(B, L)`.
        pixel_values, vision_features, image_index, scores: images, as in samples.
        mixing: None for the config's.
        max_new_tokens: at most.
        num_beams: 1 takes the likeliest token at each step.
        length_penalty: beams are compared by log-probability over length to this power.
        eos_token_id: one or more that end a text.
        pad_token_id: what follows an end (None: the first end).
        stop: new tokens `(B, n)` -> `(B,)` bool, which texts are finished.
        use_cache: False computes all anew at each step, with the same result.

    Returns:
        New tokens `(B, n)`, n at most `max_new_tokens`; without the prompts.

    Example:
        >>> tokens = model.generate(
        ...     input_ids, pixel_values=images, image_index=index, scores=scores, max_new_tokens=8
        ... )
        >>> tokenizer.batch_decode(tokens)
        [' yellow, and sometimes green.']
    """
    state = start(model, input_ids, options)
    if options.max_new_tokens < 1:
        return state.ids[:, :0]
    if options.num_beams > 1:
        return _beam_search(model, state, options)
    return _greedy(model, state, options)


def _ends(options: DecodingOptions, device: torch.device) -> Tensor:
    ends = options.eos_token_id
    listed = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    return torch.tensor(listed, dtype=torch.long, device=device)


def _pad(options: DecodingOptions, ends: Tensor) -> int:
    if options.pad_token_id is not None:
        return options.pad_token_id
    return int(ends[0]) if len(ends) else 0


def _greedy(model: FusionBase, state: GenerationState, options: DecodingOptions) -> Tensor:
    ends, length = _ends(options, state.ids.device), state.ids.shape[1]
    pad = _pad(options, ends)
    finished = torch.zeros(len(state.ids), dtype=torch.bool, device=state.ids.device)
    for _ in range(options.max_new_tokens):
        tokens = next_log_probs(model, state).argmax(dim=-1)
        tokens = torch.where(finished, pad, tokens)
        state.append(tokens)
        finished |= torch.isin(tokens, ends)
        if options.stop is not None:
            finished |= options.stop(state.ids[:, length:]).to(finished.device)
        if bool(finished.all()):
            break
    return state.ids[:, length:]


def _beam_search(model: FusionBase, state: GenerationState, options: DecodingOptions) -> Tensor:
    """Keep `num_beams` continuations of each text; a finished one competes by its mean.

    A text is done once it has as many finished continuations as beams, and none that goes on could
    still beat them by what it has now.
    """
    texts, beams, length = len(state.ids), options.num_beams, state.ids.shape[1]
    device = state.ids.device
    ends = _ends(options, device)
    state.select(torch.arange(texts, device=device).repeat_interleave(beams))
    totals = torch.full((texts, beams), -torch.inf, device=device)
    totals[:, 0] = 0  # all beams of a text are still the same
    finished: list[list[tuple[float, Tensor]]] = [[] for _ in range(texts)]
    for step in range(options.max_new_tokens):
        log_probs = next_log_probs(model, state).unflatten(0, (texts, beams))
        sums = totals[..., None] + log_probs
        kept, flat = sums.flatten(1).topk(2 * beams, dim=1)  # enough even if `beams` of them end
        vocab = log_probs.shape[-1]
        origin, tokens = flat // vocab, flat % vocab
        rows = (torch.arange(texts, device=device)[:, None] * beams + origin).flatten()
        candidate = torch.cat([state.ids[rows, length:], tokens.flatten()[:, None]], dim=1)
        over = torch.isin(tokens, ends)
        if options.stop is not None:
            over |= options.stop(candidate).to(device).unflatten(0, (texts, 2 * beams))
        for i, j in over[:, :beams].nonzero().tolist():  # worse ones are not kept
            mean = kept[i, j].item() / (step + 1) ** options.length_penalty
            finished[i].append((mean, candidate[i * 2 * beams + j]))
        going = kept.masked_fill(over, -torch.inf)
        totals, chosen = going.topk(beams, dim=1)
        state.select(torch.gather(rows.unflatten(0, (texts, -1)), 1, chosen).flatten())
        state.append(torch.gather(tokens, 1, chosen).flatten())
        best = totals[:, 0] / (step + 1) ** options.length_penalty
        if all(_is_done(finished[i], beams, best[i].item()) for i in range(texts)):
            break
    unfinished = state.ids[:, length:].unflatten(0, (texts, beams))
    power = unfinished.shape[-1] ** options.length_penalty
    for i in range(texts):
        finished[i].append(((totals[i, 0] / power).item(), unfinished[i, 0]))
    winners = [max(ended, key=lambda item: item[0])[1] for ended in finished]
    width = max(len(winner) for winner in winners)
    output = torch.full((texts, width), _pad(options, ends), dtype=torch.long, device=device)
    for i, winner in enumerate(winners):
        output[i, : len(winner)] = winner
    return output


def _is_done(finished: list[tuple[float, Tensor]], beams: int, best_going: float) -> bool:
    if len(finished) < beams:
        return False
    return sorted((mean for mean, _ in finished), reverse=True)[beams - 1] >= best_going
