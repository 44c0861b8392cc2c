"""Text to LCK tokens: words, and lists of region ids where the text names regions.

`Why is [0] near [1, 2]?` gives `["Why", "is", [0], "near", [1, 2], "?"]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Tokens = list[Any]  # words, and lists of region ids

_JOIN = r"\s*(?:,\s*and\b|,|;|/|&|\band\b)\s*"
_IDS = re.compile(
    r"\[+\s*(?:(?:region|person|object)\s*|#\s*)?"
    rf"([0-9]{{1,4}}(?:{_JOIN}[0-9]{{1,4}})*)\s*\]+",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+(?:[.,'’\-]\w+)*|['’]\w+|\.{2,}|[^\w\s]")


def tokenize(text: str) -> Tokens:
    """Return the tokens of a text that names regions by number; punctuation stands alone."""
    tokens: Tokens = []
    position = 0
    for match in _IDS.finditer(text):
        tokens += _WORD.findall(text[position : match.start()])
        ids = [int(number) for number in re.findall("[0-9]+", match[1])]
        tokens.append(list(dict.fromkeys(ids)))
        position = match.end()
    return tokens + _WORD.findall(text[position:])


def tokenize_handles(text: str, handles: Mapping[str, int]) -> Tokens:
    """Return the tokens of a text that names regions by phrases.

    Args:
        text: any case; the article before a phrase may differ.
        handles: phrase, with its article -> region id. The longest that fits wins.
    """
    if not handles:
        return _WORD.findall(text)
    by_phrase = {_bare(phrase): number for phrase, number in handles.items()}
    longest_first = sorted(by_phrase, key=len, reverse=True)
    choices = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in longest_first)
    pattern = re.compile(rf"(?<!\w)(?:(?:the|an|a)\s+)?({choices})(?!\w)", re.IGNORECASE)
    tokens: Tokens = []
    position = 0
    for match in pattern.finditer(text):
        tokens += _WORD.findall(text[position : match.start()])
        tokens.append([by_phrase[" ".join(match[1].lower().split())]])
        position = match.end()
    return tokens + _WORD.findall(text[position:])


def render(tokens: Iterable[Any]) -> str:
    """Return tokens as text; `tokenize` makes the same tokens of it."""
    return " ".join(
        f"[{', '.join(map(str, token))}]" if isinstance(token, list) else str(token)
        for token in tokens
    )


def region_ids(*parts: Tokens) -> list[int]:
    """Return the ids in token lists, each once, by first mention."""
    found = [number for tokens in parts for t in tokens if isinstance(t, list) for number in t]
    return list(dict.fromkeys(found))


def words(tokens: Tokens) -> list[str]:
    """Return the words of tokens, lower-cased, without punctuation and ids."""
    return [t.lower() for t in tokens if isinstance(t, str) and any(c.isalnum() for c in t)]


def _bare(phrase: str) -> str:
    return re.sub(r"^(?:the|an|a)\s+", "", " ".join(phrase.lower().split()))
