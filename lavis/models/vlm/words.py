"""Which tokens say yes and which say no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lavis.common.errors import ConfigError

# What may stand in front of an answer's first word: nothing, a blank, the end of a line. Tokenizers
# that put a blank in front of every text spell the bare word only behind the end of a line.
_BEFORE = ("", " ", "\n")


@dataclass(frozen=True)
class TokenSet:
    """Tokens of one verdict.

    Attributes:
        tokens: ids, ascending.
        pieces: what the tokenizer calls them.
    """

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]


def token_set(
    tokenizer: Any, words: Sequence[str], spellings: Literal["all", "spaced", "exact"], key: str
) -> TokenSet:
    """Return the tokens that a reply of one of the words may begin with.

    A spelling counts if it is one token, as the first token of a longer one may begin other words.
    If none is, the first token of each word counts. Special tokens (bos above all) never do.

    Args:
        words: such as `("Yes",)`.
        spellings: `spaced` adds a blank in front; `all` also lower case and capitals; `exact` takes
            the first token of each word as it is.
        key: for messages.

    Raises:
        ConfigError: the tokenizer has no token for any of them.

    Example:
        >>> token_set(tokenizer, ("Yes",), "all", "model.yes_words").pieces
        ('Yes', 'yes', 'YES', 'ĠYes', 'Ġyes')
    """
    first = {ids[0] for word in words if (ids := _encode(tokenizer, word))}
    single: set[int] = set()
    for word in words if spellings != "exact" else ():
        cases = (word.lower(), word.capitalize(), word.upper()) if spellings == "all" else ()
        for form in (word, *cases):
            encodings = [_behind(tokenizer, before, form) for before in _BEFORE]
            single |= {ids[0] for ids in encodings if len(ids) == 1}
    tokens = sorted(single or first)
    if not tokens:
        raise ConfigError(f"{key}: the tokenizer has no token for any of {list(words)}")
    return TokenSet(tuple(tokens), tuple(tokenizer.convert_ids_to_tokens(tokens)))


def check_apart(yes: TokenSet, no: TokenSet) -> None:
    """Raise `ConfigError` where a token says both."""
    both = set(yes.tokens) & set(no.tokens)
    if both:
        piece = yes.pieces[yes.tokens.index(min(both))]
        raise ConfigError(
            f"model.yes_words and model.no_words share the token {piece!r}; choose words whose "
            "first tokens differ"
        )


def _behind(tokenizer: Any, before: str, form: str) -> list[int]:
    """Return the tokens of a form behind something; none where the two share a token."""
    lead = _encode(tokenizer, before) if before == "\n" else []  # a blank is part of the token
    whole = _encode(tokenizer, before + form)
    return whole[len(lead) :] if whole[: len(lead)] == lead else []


def _encode(tokenizer: Any, text: str) -> list[int]:
    special = set(tokenizer.all_special_ids)
    ids = tokenizer.encode(text, add_special_tokens=False) if text else []
    return [] if special.intersection(ids) else list(ids)
