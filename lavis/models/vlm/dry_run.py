"""A vision-language critic that counts the tokens it would read, and reads none.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lavis.models.vlm.branches import Reader, TokenRow
from lavis.models.vlm.critic import VlmCritic


class TokenReader(Reader):
    """Goes through the passes of `Reader` without running the model; logits `(keep, V)` are zeros.

    Attributes:
        prompt_tokens: of all prompts, each with all of its images.
    """

    prompt_tokens = 0

    def _whole(self, rows: Sequence[TokenRow]) -> Iterator[tuple[TokenRow, Tensor]]:
        """Count a pass over prompts side by side."""
        self.passes["whole"] += 1
        yield from self._count(rows, 0)

    def _branch(self, rows: Sequence[TokenRow], length: int) -> Iterator[tuple[TokenRow, Tensor]]:
        """Count the beginning once, and the rests in passes as large as the bounds allow."""
        self.passes["beginning"] += 1
        self.tokens += length
        for part in self._parts(rows, most=self._most_rows):
            self.passes["branches"] += 1
            yield from self._count(part, length)

    def _count(self, rows: Sequence[TokenRow], shared: int) -> Iterator[tuple[TokenRow, Tensor]]:
        lengths = [len(row.ids if self._starts is None else row.prompt) for row in rows]
        self.prompt_tokens += sum(lengths)
        self.tokens += (max(lengths) - shared) * len(rows)
        config: Any = self._model.config
        vocabulary = config.get_text_config(decoder=True).vocab_size
        for row in rows:
            yield row, torch.zeros(1, 1).expand(row.keep, vocabulary)


class DryVlmCritic(VlmCritic):
    """`VlmCritic` of the same config and processor, without weights; its verdicts mean nothing."""

    has_weights = False
    reader_class = TokenReader
    reader: TokenReader

    @property
    def device(self) -> torch.device:
        """The CPU, whatever the run's device."""
        return torch.device("cpu")

    def take_counts(self) -> Counter[str]:
        """Return what was asked since the last call, and forget it.

        Returns:
            `prompt_tokens`, each prompt with all of its images; `tokens` that are read: shared
            beginnings once, padding included; `passes` of the model.
        """
        reader = self.reader
        counts = Counter(
            prompt_tokens=reader.prompt_tokens,
            tokens=reader.tokens,
            passes=sum(reader.passes.values()),
        )
        reader.prompt_tokens = reader.tokens = 0
        reader.passes = dict.fromkeys(reader.passes, 0)
        return counts

    def costs(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """Return what counts cost beside time: nothing."""
        return {}
