"""Texts that share an image: its keys and values are computed once, and each text branches off.

Shapes: N rows, P tokens of the beginning they share, L tokens of the longest rest, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis.common.multimodal import VlmFamily
from lavis.models.blip2.language import pad
from lavis.models.late_fusion.cache import NAMES
from lavis.models.vlm.inputs import Encoded


@dataclass(frozen=True, eq=False)
class TokenRow:
    """What a model reads for one prompt.

    Attributes:
        encoded: the prompts about its image.
        at: which of them.
        place: which of all N prompts.
        behind: tokens that are read behind it: of a continuation all but the last.
    """

    encoded: Encoded
    at: int
    place: int
    behind: list[int] = field(default_factory=list)

    @property
    def prompt(self) -> list[int]:
        """Its tokens."""
        return self.encoded.ids[self.at]

    @property
    def ids(self) -> list[int]:
        """All of them."""
        return [*self.prompt, *self.behind]

    @property
    def keep(self) -> int:
        """For how many of the last tokens the prediction of the next one is wanted."""
        return len(self.behind) + 1


class Reader:
    """Runs a model over prompts, those of one image from its keys and values.

    Args:
        model: of `AutoModelForImageTextToText`.
        family: its row of the table.
        most_rows, most_tokens: bounds of one pass.
        share: let texts branch where the family can.

    Attributes:
        pad: a token that may stand where none is.
        passes: forwards so far, by kind: `whole`, `beginning`, `branches`.
        tokens: tokens that were read, padding included.
    """

    def __init__(
        self,
        model: nn.Module,
        family: VlmFamily,
        *,
        pad: int,
        most_rows: int,
        most_tokens: int,
        share: bool,
    ) -> None:
        self._model, self._family, self.pad = model, family, pad
        self._most_rows, self._most_tokens = most_rows, most_tokens
        accepted = inspect.signature(model.forward).parameters
        self._cache = next((name for name in NAMES if name in accepted), None)
        self._keeps = "logits_to_keep" in accepted
        self._starts = decoder_starts(model)
        self.shares = share and self._cache is not None and family.branches != "never"
        self.passes = {"whole": 0, "beginning": 0, "branches": 0}
        self.tokens = 0

    def logits(self, rows: Sequence[TokenRow]) -> Iterator[tuple[TokenRow, Tensor]]:
        """Yield every row, in some order, with `(keep, V)` logits of its last tokens."""
        images: dict[int, list[TokenRow]] = {}
        for row in rows:
            images.setdefault(id(row.encoded), []).append(row)
        alone: dict[Any, list[TokenRow]] = {}  # by what can stand side by side
        for own in images.values():
            length = shared_length(own) if self.shares and len(own) > 1 else 0
            if length:
                yield from self._branch(own, length)
            else:
                alone.setdefault(self._kind(own[0].encoded), []).extend(own)
        for own in alone.values():
            for part in self._parts(own, most=self._most_rows if self._family.is_known else 1):
                yield from self._whole(part)

    def _kind(self, encoded: Encoded) -> Any:
        """Return what images must share to stand side by side."""
        if self._family.joins == "any":
            return None
        if self._family.joins == "same":
            return id(encoded)
        shapes = {name: _shape(value) for name, value in encoded.vision.items()}
        return tuple(sorted(shapes.items()))

    def together(self, rows: Sequence[TokenRow]) -> list[Tensor]:
        """Return `logits` of each row, in order, for training: with gradients, nothing shared.

        One pass reads all, where images may be joined; else there are as many passes as rows, so
        that processes that split a model's weights call it equally often.
        """
        joined = self._family.is_known and self._family.joins != "same"
        steps = [rows] if joined else [[row] for row in rows]
        return [logits for step in steps for _, logits in self._whole(step)]

    def _whole(self, rows: Sequence[TokenRow]) -> Iterator[tuple[TokenRow, Tensor]]:
        """Run prompts side by side, padded on the right, each with the images of its own."""
        inputs = self.inputs(rows)
        ends = [len(row.ids) for row in rows]
        if self._starts is not None:
            written = [[*self._starts, *row.behind] for row in rows]
            inputs["decoder_input_ids"] = self._padded(written, self.pad)[0]
            ends = list(map(len, written))
        self.passes["whole"] += 1
        yield from self._call(rows, ends, inputs, {"use_cache": False} if self._cache else {})

    def inputs(self, rows: Sequence[TokenRow], *, left: bool = False) -> dict[str, Any]:
        """Return what the model takes of rows: texts, and the images of each.

        Args:
            left: pad where a text is continued on the left; what an encoder reads, never.
        """
        left = left and self._starts is None
        read = [row.ids if self._starts is None else row.prompt for row in rows]
        ids, mask = self._padded(read, self.pad, left=left)
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs |= self._vision([row.encoded for row in rows])
        for name in rows[0].encoded.types:
            behind = self._family.behind if name == "token_type_ids" else 0
            own = [row.encoded.types[name][row.at] for row in rows]
            filled = [
                [*types, *[behind] * (len(ids) - len(types))]
                for types, ids in zip(own, read, strict=True)
            ]
            inputs[name] = self._padded(filled, 0, left=left)[0]
        return inputs

    def _branch(self, rows: Sequence[TokenRow], length: int) -> Iterator[tuple[TokenRow, Tensor]]:
        """Run the beginning once, and the rest of every row from its keys and values."""
        first = rows[0]
        ids, mask = self._padded([first.ids[:length]], self.pad)
        inputs = {"input_ids": ids, "attention_mask": mask, **self._vision([first.encoded])}
        for name, values in first.encoded.types.items():
            inputs[name] = self._padded([values[first.at][:length]], 0)[0]
        options = {"logits_to_keep": 1} if self._keeps else {}
        self.passes["beginning"] += 1
        self.tokens += length
        output = self._model(**inputs, **options, use_cache=True)
        beginning = output[self._cache]
        delta = self._delta()
        for part in self._parts(rows, most=self._most_rows):
            cache = copy.deepcopy(beginning)
            if len(part) > 1:
                cache.reorder_cache(torch.zeros(len(part), dtype=torch.long, device=self._device))
            rest = [row.ids[length:] for row in part]
            ids, _ = self._padded(rest, self.pad)
            places = torch.arange(length, length + ids.shape[1], device=self._device)
            # causal, and padded on the right: no mask is needed
            inputs = {"input_ids": ids, **self._positions(places, delta, len(part))}
            self.passes["branches"] += 1
            yield from self._call(part, list(map(len, rest)), inputs, {self._cache or "": cache})

    def _call(
        self,
        rows: Sequence[TokenRow],
        ends: Sequence[int],
        inputs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Iterator[tuple[TokenRow, Tensor]]:
        """Run a padded batch; `ends` are the lengths of what is predicted from."""
        self.tokens += inputs["input_ids"].numel()
        wanted = [range(end - row.keep, end) for row, end in zip(rows, ends, strict=True)]
        places = sorted({place for own in wanted for place in own})
        if self._keeps:
            options = {**options, "logits_to_keep": torch.tensor(places, device=self._device)}
        logits = self._model(**inputs, **options).logits  # (n, kept, V)
        column = {place: at for at, place in enumerate(places)} if self._keeps else {}
        for row, own, values in zip(rows, wanted, logits, strict=True):
            yield row, values[[column.get(place, place) for place in own]]

    def _parts(self, rows: Sequence[TokenRow], *, most: int) -> Iterator[list[TokenRow]]:
        """Yield rows by length, as many at once as the bounds allow."""
        part: list[TokenRow] = []
        for row in sorted(rows, key=lambda row: len(row.ids)):
            full = (len(part) + 1) * len(row.ids) > self._most_tokens
            if part and (full or len(part) == most):
                yield part
                part = []
            part.append(row)
        if part:
            yield part

    def _positions(self, places: Tensor, delta: Tensor | None, count: int) -> dict[str, Tensor]:
        """Return where the tokens of branches stand, `(n, L)` or `(3, n, L)`."""
        if self._family.positions == "none":
            return {}
        if self._family.positions == "rope_deltas":
            assert delta is not None, "the model has no rope_deltas"
            moved = places + delta.reshape(1, 1, -1)[..., :1]
            return {"position_ids": moved.expand(3, count, -1)}
        return {"position_ids": places.expand(count, -1)}

    def _delta(self) -> Tensor | None:
        """Return what the model remembers of the last images it saw; another prompt replaces it."""
        for module in self._model.modules():
            delta = getattr(module, "rope_deltas", None)
            if isinstance(delta, Tensor):
                return delta.clone()
        return None

    def _vision(self, images: Sequence[Encoded]) -> dict[str, Any]:
        """Return what the model takes of the images of several prompts."""
        joined: dict[str, Any] = {}
        for name, value in images[0].vision.items():
            if isinstance(value, Tensor):
                value = join([encoded.vision[name].to(self._device) for encoded in images])
                value = value.to(self._dtype) if value.is_floating_point() else value
            joined[name] = value
        return joined

    def _padded(
        self, rows: Sequence[Sequence[int]], fill: int, *, left: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return rows as `(n, L)` and their mask, padded on the right, or on the left."""
        ids, mask = pad(list(map(list, rows)), fill, left=left)
        return ids.to(self._device), mask.to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(self._model, "dtype", torch.float32)
        return dtype


def join(values: Sequence[Tensor]) -> Tensor:
    """Return tensors of images after each other, `(sum of n, ...)`; smaller ones end in zeros."""
    sizes = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
    padded = []
    for value in values:
        missing = [size - own for size, own in zip(sizes, value.shape[1:], strict=True)]
        padded.append(F.pad(value, [n for more in reversed(missing) for n in (0, more)]))
    return torch.cat(padded)


def decoder_starts(model: Any) -> list[int] | None:
    """Return what a decoder's text begins with, None where the prompt itself is continued."""
    text = model.config.get_text_config(decoder=True)
    if not (model.config.is_encoder_decoder or getattr(text, "is_encoder_decoder", False)):
        return None
    settings = (model.generation_config, text, model.config)
    names = ("decoder_start_token_id", "forced_bos_token_id")
    found = [[getattr(one, name, None) for one in settings] for name in names]
    return [
        next(i for i in ids if i is not None) for ids in found if any(i is not None for i in ids)
    ]


def shared_length(rows: Sequence[TokenRow]) -> int:
    """Return how many tokens the rows of an image begin with; 0 where these do not hold all of it.

    The last `keep` tokens of each row stay out: their predictions are wanted.
    """
    most = min(len(row.ids) - row.keep for row in rows)
    first = rows[0].ids
    for row in rows[1:]:
        agreed = 0
        while agreed < most and row.ids[agreed] == first[agreed]:
            agreed += 1
        most = agreed
    visible = rows[0].encoded.visible
    return most if visible and most >= visible else 0


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else repr(value)
