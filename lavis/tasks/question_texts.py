"""Questions as token rows: what a model must read, where, and of which tokens.

Shapes: B rows, L tokens, R read positions of a row, C tokens read at one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.errors import ConfigError, RecordError
from lavis.tasks.candidates import CandidateTokens, Path

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.benchmarks.question import Question


@dataclass(frozen=True, slots=True)
class Ask:
    """One row for the model.

    Attributes:
        question: place of its question in the unit.
        prompt: which of the question's prompts.
        ids: tokens.
        reads: (position, tokens whose probability after it is wanted).
        prefixes: `next_word`: what of a candidate stands before each read.
        ends: `choice`: where each token after the first ends, in characters.
    """

    question: int
    prompt: int
    ids: tuple[int, ...]
    reads: tuple[tuple[int, tuple[int, ...]], ...] = ()
    prefixes: tuple[Path, ...] = ()
    ends: tuple[int, ...] = ()


class QuestionTokenizer:
    """Turns questions into rows.

    Args:
        tokenizer: a fast tokenizer of transformers.
        max_tokens: longer rows are rejected, or cut at their beginning.
        first_only: read no more of candidates than their first tokens.

    Attributes:
        masked: the tokenizer belongs to a model that fills masks.
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
        self.masked = None not in (tokenizer.mask_token_id, tokenizer.cls_token_id)
        self.first_only = first_only or self.masked
        self._max, self._cut = max_tokens, cut
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
        """Load a tokenizer by Hugging Face id or folder.

        Raises:
            ConfigError: it is not there, or has no offsets.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ConfigError(f"run.tokenizer: cannot load '{name}': {error}") from None
        if not tokenizer.is_fast:
            raise ConfigError(f"run.tokenizer: '{name}' is not a fast tokenizer, which is needed")
        return cls(tokenizer, max_tokens, cut=cut, first_only=first_only)

    @property
    def pad(self) -> int:
        """A token that may stand where none is."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    @property
    def ends(self) -> list[int]:
        """Tokens that end a written answer."""
        end = self.tokenizer.eos_token_id
        return [] if end is None else [int(end)]

    def asks(self, question: Question, place: int) -> list[Ask]:
        """Return the rows of a question.

        Raises:
            RecordError: a text is too long, or has nothing to predict.
        """
        if question.kind == "next_word":
            prompts = enumerate(question.prompts)
            return [ask for n, text in prompts for ask in self._next_word(question, place, n, text)]
        if self.masked:
            raise ConfigError(
                f"run.tokenizer: a model that fills masks cannot do a '{question.kind}' benchmark"
            )
        if question.kind == "choice":
            return [self._choice(place, n, text) for n, text in enumerate(question.prompts)]
        prompts = enumerate(question.prompts)
        return [Ask(place, n, self._fit(self.tokenizer(text).input_ids)) for n, text in prompts]

    def _candidates(self, options: tuple[str, ...], forms: Any) -> CandidateTokens:
        return CandidateTokens.of(self.tokenizer, options, forms, first_only=self.first_only)

    def _next_word(self, question: Question, place: int, prompt: int, text: str) -> list[Ask]:
        tokens = self.candidates(question.options, question.forms)
        if self.masked:
            ids = self.tokenizer(f"{text} {self.tokenizer.mask_token}").input_ids
            ids = self._fit(ids)
            last = len(ids) - 1 - ids[::-1].index(self.tokenizer.mask_token_id)
        else:
            ids = self._fit(self.tokenizer(text).input_ids)
            last = len(ids) - 1
        found = []
        for path, reads in zip(tokens.continuations, tokens.reads, strict=True):
            places = tuple((last + len(prefix), wanted) for prefix, wanted in reads.items())
            found.append(Ask(place, prompt, (*ids, *path), places, tuple(reads)))
        return found

    def _choice(self, place: int, prompt: int, text: str) -> Ask:
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids, offsets = tuple(encoded.input_ids), encoded.offset_mapping
        if len(ids) < 2:
            raise RecordError("too short: a text of one token has nothing to predict")
        kept = self._fit(ids)
        cut = len(ids) - len(kept)
        reads = tuple((at, (kept[at + 1],)) for at in range(len(kept) - 1))
        return Ask(place, prompt, kept, reads, ends=tuple(end for _, end in offsets[cut + 1 :]))

    def _fit(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return tokens within the limit; a start token is kept where the rest is cut."""
        if not ids:
            raise RecordError("empty text: no tokens")
        if self._max is None or len(ids) <= self._max:
            return tuple(ids)
        if not self._cut:
            raise RecordError(f"text too long: {len(ids)} tokens, run.max_tokens is {self._max}")
        start = [ids[0]] if ids[0] == self.tokenizer.bos_token_id else []
        return (*start, *ids[len(ids) - self._max + len(start) :])


@dataclass
class TextRows:
    """Rows of a unit as tensors.

    Attributes:
        samples: `input_ids`, `attention_mask` `(T, L)` of T distinct texts; `text_index` `(B,)`;
            `positions` `(B, R)` and `token_ids` `(B, R, C)`, padded with 0.
        asks: the B rows.
    """

    samples: dict[str, Tensor] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)


def text_rows(asks: list[Ask], pad: int) -> TextRows:
    """Pad rows at the right; equal texts stand once."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    places = {ids: n for n, ids in enumerate(dict.fromkeys(ask.ids for ask in asks))}
    texts = [torch.tensor(ids, dtype=torch.long) for ids in places]
    samples = {
        "input_ids": pad_sequence(texts, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence([torch.ones_like(t) for t in texts], batch_first=True),
        "text_index": torch.tensor([places[ask.ids] for ask in asks], dtype=torch.long),
    }
    read = max((len(ask.reads) for ask in asks), default=0)
    if read:
        wide = max(len(wanted) for ask in asks for _, wanted in ask.reads)
        positions = np.zeros((len(asks), read), dtype=np.int64)
        tokens = np.zeros((len(asks), read, wide), dtype=np.int64)
        for row, ask in enumerate(asks):
            for column, (position, wanted) in enumerate(ask.reads):
                positions[row, column] = position
                tokens[row, column, : len(wanted)] = wanted
        samples["positions"] = torch.from_numpy(positions)
        samples["token_ids"] = torch.from_numpy(tokens)
    return TextRows(samples, asks)
