"""Questions as token rows: input tokens, target positions, and the tokens to score at each.

Shapes: B rows, L tokens, R target positions of a row, C target tokens at one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.errors import ConfigError, RecordError
from lavis.common.pretrained import Specials, check_vocabulary, load_tokenizer, padding_token
from lavis.tasks.questions.candidates import CandidateTokens, Path
from lavis.tasks.questions.prefixes import shared_prefixes, targets_per_row

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.benchmarks.question import Kind, Question
    from lavis.tasks.base import LateFusionModel


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One row for the model.

    Attributes:
        question: place of its question in the unit.
        prompt: which of the question's prompts.
        ids: tokens.
        targets: (position, tokens whose probability after it is needed).
        prefixes: `next_word`: the part of a candidate before each target.
        ends: `choice`: where each token after the first ends, in characters.
        skipped: `choice`: number of first targets that its question's first row has instead.
    """

    question: int
    prompt: int
    ids: tuple[int, ...]
    targets: tuple[tuple[int, tuple[int, ...]], ...] = ()
    prefixes: tuple[Path, ...] = ()
    ends: tuple[int, ...] = ()
    skipped: int = 0


class QuestionTokenizer:
    """Turns questions into rows, after `set_model`, by a fast tokenizer.

    Args:
        max_tokens: longer rows are rejected, or cut at their beginning.
        first_only: predict only the first tokens of candidates.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_tokens: int | None = None,
        *,
        cut: bool = False,
        first_only: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.first_only = first_only
        self._max, self._cut = max_tokens, cut
        self._specials = Specials.of(tokenizer)
        self._masked: bool | None = None
        self._vocabulary: int | None = None
        self.candidates = cache(self._candidates)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "candidates"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.candidates = cache(self._candidates)

    @classmethod
    def load(
        cls, name: str, max_tokens: int | None, *, cut: bool, first_only: bool
    ) -> QuestionTokenizer:
        """Load a tokenizer by id or folder; raises `ConfigError` if missing or without offsets."""
        tokenizer = load_tokenizer(name, "run.tokenizer")
        if not tokenizer.is_fast:
            raise ConfigError(f"run.tokenizer: '{name}' is not a fast tokenizer, which is needed")
        return cls(tokenizer, max_tokens, cut=cut, first_only=first_only)

    def set_model(self, model: LateFusionModel) -> None:
        """Make rows for a model, which alone says whether it fills masks.

        Raises:
            ConfigError: the tokenizer is not the model's.
        """
        check_vocabulary(self.tokenizer, model)
        self._masked, self._vocabulary = model.fills_masks, model.vocabulary
        self.first_only = self.first_only or self.masked
        self.candidates = cache(self._candidates)

    @property
    def masked(self) -> bool:
        """Whether the model fills masks."""
        assert self._masked is not None, "set_model(model) says whether masks are filled"
        return self._masked

    @property
    def pad(self) -> int:
        """A token for positions without one."""
        return padding_token(self.tokenizer)

    @property
    def ends(self) -> list[int]:
        """Tokens that end a written answer."""
        end = self.tokenizer.eos_token_id
        return [] if end is None else [int(end)]

    def check_kind(self, kind: Kind) -> None:
        """Raise `ConfigError` if the model cannot do a benchmark's kind of question."""
        if self.masked and kind != "next_word":
            raise ConfigError(
                f"run.tokenizer: a model that fills masks cannot do a '{kind}' benchmark, which "
                "needs the probability of whole texts; use a causal model"
            )

    def requests(
        self, question: Question, place: int, *, own_images: bool = False
    ) -> list[TextRequest]:
        """Return the rows of a question.

        Args:
            place: of the question in its unit.
            own_images: each prompt has its own, so that no two rows predict the same.

        Raises:
            RecordError: a text is too long, or has nothing to predict.
        """
        prompts = list(enumerate(question.prompts))
        if question.kind == "next_word":
            return [row for n, text in prompts for row in self._next_word(question, place, n, text)]
        self.check_kind(question.kind)
        if question.kind == "choice":
            options = [self._choice(place, n, text) for n, text in prompts]
            return options if own_images else _context_once(options)
        return [TextRequest(place, n, self._fit(self._open(text))) for n, text in prompts]

    def _candidates(self, options: tuple[str, ...], forms: Any) -> CandidateTokens:
        return CandidateTokens.of(self.tokenizer, options, forms, first_only=self.first_only)

    def _next_word(
        self, question: Question, place: int, prompt: int, text: str
    ) -> list[TextRequest]:
        tokens = self.candidates(question.options, question.forms)
        if self.masked:
            ids = self._fit(self.tokenizer(f"{text} {self.tokenizer.mask_token}").input_ids)
            last = len(ids) - 1 - ids[::-1].index(self.tokenizer.mask_token_id)
        else:
            ids = self._fit(self._open(text))
            last = len(ids) - 1
        rows = []
        for path, targets in zip(tokens.continuations, tokens.targets, strict=True):
            at = tuple((last + len(prefix), target_ids) for prefix, target_ids in targets.items())
            rows.append(TextRequest(place, prompt, (*ids, *path), at, tuple(targets)))
        return rows

    def _choice(self, place: int, prompt: int, text: str) -> TextRequest:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        opening = self._specials.opening
        ids = (*opening, *encoded.input_ids)
        offsets = [(0, 0)] * len(opening) + list(encoded.offset_mapping)
        if len(ids) < 2:
            raise RecordError("too short: a text of one token has nothing to predict")
        kept = self._fit(ids)
        offsets = [*offsets[: len(opening)], *offsets[len(opening) + len(ids) - len(kept) :]]
        targets = tuple((at, (kept[at + 1],)) for at in range(len(kept) - 1))
        ends = tuple(end for _, end in offsets[1:])
        return TextRequest(place, prompt, kept, targets, ends=ends)

    def _open(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text without end token."""
        bare = self.tokenizer(text, add_special_tokens=False).input_ids
        return (*self._specials.opening, *bare)

    def _fit(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return tokens within the limit; a cut text keeps its start token."""
        if not ids:
            raise RecordError("empty text: no tokens")
        if self._vocabulary is not None and max(ids) >= self._vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise RecordError(
                f"token '{token}' has the number {max(ids)}, and the language model has vectors "
                f"for {self._vocabulary}"
            )
        if self._max is None or len(ids) <= self._max:
            return tuple(ids)
        opening = self._specials.opening
        around = len(opening) + (len(self._specials.closing) if self._masked else 0)
        if not self._cut or self._max <= around:
            raise RecordError(f"text too long: {len(ids)} tokens, run.max_tokens is {self._max}")
        start = opening if tuple(ids[: len(opening)]) == opening else ()
        return (*start, *ids[len(ids) - self._max + len(start) :])


def _context_once(options: list[TextRequest]) -> list[TextRequest]:
    """Keep targets only in the first option if all options share their tokens up to there."""
    common = 0
    for tokens in zip(*(option.ids for option in options), strict=False):
        if len(set(tokens)) > 1:
            break
        common += 1
    skipped = max(common - 1, 0)  # token j is predicted at j - 1
    first, *rest = options
    return [first, *(replace(o, targets=o.targets[skipped:], skipped=skipped) for o in rest)]


def split_targets(requests: Sequence[TextRequest]) -> list[TextRequest]:
    """Split rows with many targets into rows of the same text, so that few targets are padding."""
    size = targets_per_row([len(request.targets) for request in requests])
    rows = []
    for request in requests:
        for start in range(0, max(len(request.targets), 1), size):
            part = slice(start, start + size)
            targets, prefixes = request.targets[part], request.prefixes[part]
            rows.append(replace(request, targets=targets, prefixes=prefixes))
    return rows


def collate_requests(
    requests: Sequence[TextRequest], pad: int, *, share: bool = True
) -> dict[str, Any]:
    """Return the tensors of a unit; equal texts stand once.

    Args:
        requests: B rows.
        pad: the padding token.
        share: arrange texts by their prefixes.

    Returns:
        `input_ids`, `attention_mask` `(T, L)` of T distinct texts; `text_index` `(B,)`; `positions`
        `(B, R)` and `token_ids` `(B, R, C)`, padded with a row's first token. With shared prefixes,
        `prefix_length` columns hold them at the left, `prefix_first` `(G,)` is a text of each, and
        `prefix_of` `(T,)` the one of each text.
    """
    import torch

    places = {ids: n for n, ids in enumerate(dict.fromkeys(row.ids for row in requests))}
    texts = list(places)
    shared = shared_prefixes(texts) if share else None
    lengths = [0] * len(texts) if shared is None else [shared.lengths[of] for of in shared.of]
    width = max(lengths)
    rest = max(len(text) - n for text, n in zip(texts, lengths, strict=True))
    ids = np.full((len(texts), width + rest), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, (text, n) in enumerate(zip(texts, lengths, strict=True)):
        ids[row, width - n : width - n + len(text)] = text
        mask[row, width - n : width - n + len(text)] = 1
    of_text = [places[row.ids] for row in requests]
    samples: dict[str, Any] = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "text_index": torch.tensor(of_text, dtype=torch.long),
    }
    if shared is not None:
        samples["prefix_length"] = width
        samples["prefix_first"] = torch.tensor(shared.first, dtype=torch.long)
        samples["prefix_of"] = torch.tensor(shared.of, dtype=torch.long)
    return samples | _targets(requests, [width - lengths[text] for text in of_text])


def _targets(requests: Sequence[TextRequest], shifts: Sequence[int]) -> dict[str, Tensor]:
    """Return `positions` `(B, R)` and `token_ids` `(B, R, C)`; empty without targets."""
    import torch

    most = max((len(request.targets) for request in requests), default=0)
    if not most:
        return {}
    wide = max(len(target_ids) for request in requests for _, target_ids in request.targets)
    positions = np.zeros((len(requests), most), dtype=np.int64)
    tokens = np.zeros((len(requests), most, wide), dtype=np.int64)
    for row, (request, shift) in enumerate(zip(requests, shifts, strict=True)):
        positions[row] = shift
        for column, (position, target_ids) in enumerate(request.targets):
            positions[row, column] = shift + position
            tokens[row, column, : len(target_ids)] = target_ids
    return {"positions": torch.from_numpy(positions), "token_ids": torch.from_numpy(tokens)}
