"""Which tokens of a server's report say yes, and which say no."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lavis.common.errors import ConfigError
from lavis.llm.base import TokenLogprobs
from lavis.llm.replies.logprobs import plain_token

Spellings = Literal["all", "exact"]
# Blanks, quotation marks, stars and other marks that may stand before the first word of an answer.
_MARKS = re.compile(r"""[\s"'`*_#>(\[{“”„‘’‚«»‹›「」『』]*""")


@dataclass(frozen=True)
class VerdictWords:
    """The words of one verdict, and the ways in which a token may spell one of them.

    Attributes:
        words: in lower case; with `exact` spellings as they are.
        spellings: tokens that the vocabulary may have for them.
        exact: only these spellings count, in this case, without a blank.
    """

    words: frozenset[str]
    spellings: frozenset[str]
    exact: bool = False

    @classmethod
    def of(cls, words: Sequence[str], spellings: Spellings = "all") -> VerdictWords:
        """Return words with their spellings: in three cases, with and without a blank in front."""
        if spellings == "exact":
            return cls(frozenset(words), frozenset(words), exact=True)
        forms = {f for w in words for f in (w, w.lower(), w.capitalize(), w.upper())}
        every = frozenset(before + form for form in forms for before in ("", " "))
        return cls(frozenset(word.strip().casefold() for word in words), every)

    def says(self, token: str) -> bool:
        """Return whether a token is one of the words."""
        plain = plain_token(token)
        return plain in self.words if self.exact else plain.strip().casefold() in self.words

    def not_among(self, tokens: Iterable[str]) -> int:
        """Return how many of the spellings are not listed."""
        return len(self.spellings - set(map(plain_token, tokens)))

    def in_vocabulary(self, tokenizer: Any) -> tuple[VerdictWords, list[int]]:
        """Return the same words with the spellings that are one token, and the ids of these.

        Args:
            tokenizer: of transformers, the one of the server's model.

        Raises:
            ConfigError: none is one token.
        """
        ids = {
            spelling: encoded[0]
            for spelling in sorted(self.spellings)
            if len(encoded := tokenizer.encode(spelling, add_special_tokens=False)) == 1
        }
        if not ids:
            words = ", ".join(sorted(self.words))
            raise ConfigError(f"llm.tokenizer: it has no single token for any spelling of: {words}")
        known = VerdictWords(self.words, frozenset(ids), self.exact)
        return known, sorted(set(ids.values()))


def first_word(logprobs: Sequence[TokenLogprobs]) -> TokenLogprobs | None:
    """Return the place of an answer's first token that is more than blanks and marks."""
    for place in logprobs:
        if not _MARKS.fullmatch(plain_token(place.token)):
            return place
    return None
