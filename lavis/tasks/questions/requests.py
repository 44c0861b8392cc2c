"""Questions as token rows: what a model must read, where, and of which tokens.

Shapes: B rows, L tokens, R read positions of a row, C tokens read at one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lavis.common.errors import ConfigError, RecordError
from lavis.common.pretrained import Specials, check_vocabulary, load_tokenizer, padding_token
from lavis.tasks.candidates import CandidateTokens, Path
from lavis.tasks.questions.sharing import reads_of_a_row, shared_beginnings

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.benchmarks.question import Kind, Question


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
        skipped: `choice`: reads at the beginning that its question's first row has in its place.
    """

    question: int
    prompt: int
    ids: tuple[int, ...]
    reads: tuple[tuple[int, tuple[int, ...]], ...] = ()
    prefixes: tuple[Path, ...] = ()
    ends: tuple[int, ...] = ()
    skipped: int = 0


class QuestionTokenizer:
    """Turns questions into rows.

    Args:
        tokenizer: a fast tokenizer of transformers.
        max_tokens: longer rows are rejected, or cut at their beginning.
        first_only: read no more of candidates than their first tokens.

    Before it is asked for rows, `read_by` says which model will read them.
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
        self._masked: bool | None = None
        self.first_only = first_only
        self._max, self._cut = max_tokens, cut
        self._specials = Specials.of(tokenizer)
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
        """Load a tokenizer by Hugging Face id or folder.

        Raises:
            ConfigError: it is not there, or has no offsets.
        """
        tokenizer = load_tokenizer(name, "run.tokenizer")
        if not tokenizer.is_fast:
            raise ConfigError(f"run.tokenizer: '{name}' is not a fast tokenizer, which is needed")
        return cls(tokenizer, max_tokens, cut=cut, first_only=first_only)

    def read_by(self, model: Any) -> None:
        """Take note of the model that will read the rows; it, not the tokenizer, says how.

        Args:
            model: has `fills_masks` and `vocabulary`, how many tokens it has vectors for.

        Raises:
            ConfigError: the tokenizer is not the model's.
        """
        check_vocabulary(self.tokenizer, model)
        self._masked, self._vocabulary = model.fills_masks, model.vocabulary
        self.first_only = self.first_only or self.masked
        self.candidates = cache(self._candidates)

    @property
    def masked(self) -> bool:
        """Whether the model that will read the rows fills masks."""
        assert self._masked is not None, "read_by(model) says whether texts are read at a mask"
        return self._masked

    @property
    def pad(self) -> int:
        """A token that may stand where none is."""
        return padding_token(self.tokenizer)

    @property
    def ends(self) -> list[int]:
        """Tokens that end a written answer."""
        end = self.tokenizer.eos_token_id
        return [] if end is None else [int(end)]

    def check_kind(self, kind: Kind) -> None:
        """Raise `ConfigError` where the model cannot do a benchmark's kind of question."""
        if self.masked and kind != "next_word":
            raise ConfigError(
                f"run.tokenizer: a model that fills masks cannot do a '{kind}' benchmark, which "
                "needs the probability of whole texts; use a causal model"
            )

    def asks(self, question: Question, place: int, *, own_images: bool = False) -> list[Ask]:
        """Return the rows of a question.

        Args:
            place: of the question in its unit.
            own_images: each prompt has its own, so that no two rows predict the same.

        Raises:
            RecordError: a text is too long, or has nothing to predict.
        """
        if question.kind == "next_word":
            prompts = enumerate(question.prompts)
            return [ask for n, text in prompts for ask in self._next_word(question, place, n, text)]
        self.check_kind(question.kind)
        if question.kind == "choice":
            options = [self._choice(place, n, text) for n, text in enumerate(question.prompts)]
            return options if own_images else _read_context_once(options)
        prompts = enumerate(question.prompts)
        return [Ask(place, n, self._fit(self._open(text))) for n, text in prompts]

    def _candidates(self, options: tuple[str, ...], forms: Any) -> CandidateTokens:
        return CandidateTokens.of(self.tokenizer, options, forms, first_only=self.first_only)

    def _next_word(self, question: Question, place: int, prompt: int, text: str) -> list[Ask]:
        tokens = self.candidates(question.options, question.forms)
        if self.masked:
            ids = self.tokenizer(f"{text} {self.tokenizer.mask_token}").input_ids
            ids = self._fit(ids)
            last = len(ids) - 1 - ids[::-1].index(self.tokenizer.mask_token_id)
        else:
            ids = self._fit(self._open(text))
            last = len(ids) - 1
        found = []
        for path, reads in zip(tokens.continuations, tokens.reads, strict=True):
            places = tuple((last + len(prefix), wanted) for prefix, wanted in reads.items())
            found.append(Ask(place, prompt, (*ids, *path), places, tuple(reads)))
        return found

    def _choice(self, place: int, prompt: int, text: str) -> Ask:
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        opening = self._specials.opening
        ids = (*opening, *encoded.input_ids)
        offsets = [(0, 0)] * len(opening) + list(encoded.offset_mapping)
        if len(ids) < 2:
            raise RecordError("too short: a text of one token has nothing to predict")
        kept = self._fit(ids)
        offsets = [*offsets[: len(opening)], *offsets[len(opening) + len(ids) - len(kept) :]]
        reads = tuple((at, (kept[at + 1],)) for at in range(len(kept) - 1))
        return Ask(place, prompt, kept, reads, ends=tuple(end for _, end in offsets[1:]))

    def _open(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text that goes on: nothing closes it."""
        bare = self.tokenizer(text, add_special_tokens=False).input_ids
        return (*self._specials.opening, *bare)

    def _fit(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return tokens within the limit; a start token is kept where the rest is cut."""
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


def _read_context_once(options: list[Ask]) -> list[Ask]:
    """Leave to the first option the reads whose tokens, and all before them, are in every one."""
    common = 0
    for tokens in zip(*(ask.ids for ask in options), strict=False):
        if len(set(tokens)) > 1:
            break
        common += 1
    skipped = max(common - 1, 0)  # token j is read at j - 1
    first, *rest = options
    return [first, *(replace(ask, reads=ask.reads[skipped:], skipped=skipped) for ask in rest)]


def split_reads(asks: Sequence[Ask]) -> list[Ask]:
    """Cut rows with many reads in several of the same text, so that few reads are padding."""
    size = reads_of_a_row([len(ask.reads) for ask in asks])
    found = []
    for ask in asks:
        for start in range(0, max(len(ask.reads), 1), size):
            part = slice(start, start + size)
            found.append(replace(ask, reads=ask.reads[part], prefixes=ask.prefixes[part]))
    return found


def text_rows(asks: Sequence[Ask], pad: int, *, share: bool = True) -> dict[str, Any]:
    """Return the tensors of a unit; equal texts stand once.

    Args:
        asks: B rows.
        pad: what stands where no token is.
        share: arrange texts by their beginnings.

    Returns:
        `input_ids`, `attention_mask` `(T, L)` of T distinct texts; `text_index` `(B,)`; `positions`
        `(B, R)` and `token_ids` `(B, R, C)`, padded with a row's first token. Where beginnings are
        shared, `start_length` columns hold them at the left, `start_first` `(G,)` names a text of
        each, and `start_of` `(T,)` says which one each text has.
    """
    import torch

    places = {ids: n for n, ids in enumerate(dict.fromkeys(ask.ids for ask in asks))}
    texts = list(places)
    found = shared_beginnings(texts) if share else None
    begun = [found.lengths[of] for of in found.of] if found is not None else [0] * len(texts)
    width = max(begun)
    rest = max(len(text) - n for text, n in zip(texts, begun, strict=True))
    ids = np.full((len(texts), width + rest), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, (text, n) in enumerate(zip(texts, begun, strict=True)):
        ids[row, width - n : width - n + len(text)] = text
        mask[row, width - n : width - n + len(text)] = 1
    of_text = [places[ask.ids] for ask in asks]
    samples: dict[str, Any] = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "text_index": torch.tensor(of_text, dtype=torch.long),
    }
    if found is not None:
        samples["start_length"] = width
        samples["start_first"] = torch.tensor(found.first, dtype=torch.long)
        samples["start_of"] = torch.tensor(found.of, dtype=torch.long)
    return samples | _reads(asks, [width - begun[text] for text in of_text])


def _reads(asks: Sequence[Ask], shifts: Sequence[int]) -> dict[str, Tensor]:
    """Return `positions` `(B, R)` and `token_ids` `(B, R, C)`; none where nothing is read."""
    import torch

    read = max((len(ask.reads) for ask in asks), default=0)
    if not read:
        return {}
    wide = max(len(wanted) for ask in asks for _, wanted in ask.reads)
    positions = np.zeros((len(asks), read), dtype=np.int64)
    tokens = np.zeros((len(asks), read, wide), dtype=np.int64)
    for row, (ask, shift) in enumerate(zip(asks, shifts, strict=True)):
        positions[row] = shift
        for column, (position, wanted) in enumerate(ask.reads):
            positions[row, column] = shift + position
            tokens[row, column, : len(wanted)] = wanted
    return {"positions": torch.from_numpy(positions), "token_ids": torch.from_numpy(tokens)}
