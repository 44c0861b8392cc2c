"""Text to LCK tokens: words, and lists of region ids where the text names regions.

`Why is [0] near [1, 2]?` gives `["Why", "is", [0], "near", [1, 2], "?"]`.

The words are the text's own characters in their order; only white space goes, and a mention of
regions takes the spelling `[1, 2]`. Nothing is normalized. Combining marks, joiners and marks of
direction stay in the word they stand in, see `lavis.common.text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import regex

from lavis.common.text import (
    BASE,
    LETTER,
    MARK,
    SIGN,
    SPACE,
    STARTS,
    UNSPACED,
    fold,
    has_letters,
    num_words,
    pattern_of,
)

Tokens = list[Any]  # words, and lists of region ids

# Brackets and commas of East Asian and Arabic texts, too; `\p{Nd}` are the digits of all scripts.
OPEN, CLOSE = r"[\[［【〔〚⟦]", r"[\]］】〕〛⟧]"
_BLANK = rf"(?:{SPACE}|\p{{Cf}})*"
_JOIN = rf"{_BLANK}(?:[,，、،]{_BLANK}and\b|[,，、،;；؛/／&＆]|\band\b){_BLANK}"
_ID = r"\p{Nd}{1,4}"
_IDS = regex.compile(
    rf"(?<!{OPEN}){OPEN}++{_BLANK}(?:(?:region|person|object){_BLANK}|[#＃]{_BLANK})?"
    rf"({_ID}(?:{_JOIN}{_ID})*){_BLANK}{CLOSE}+",
    regex.IGNORECASE,
)
_NUMBER = regex.compile(r"\p{Nd}+")
_SPACED = rf"(?:(?!{UNSPACED}){BASE})"
_START, _END = rf"(?<!{_SPACED}{MARK}*)", rf"(?!{MARK}*{_SPACED})"  # of a word
_INSIDE = r"[.,'’\-·׳״־་]"  # between letters part of a word; also Catalan, Hebrew, Tibetan
_WORD = regex.compile(
    rf"{LETTER}+(?:{_INSIDE}{STARTS}{LETTER}+)*|['’]{STARTS}{LETTER}+"
    rf"|\.{{2,}}(?![\p{{GCB=Extend}}\p{{GCB=SpacingMark}}]){MARK}*|{SIGN}"
)
_BRACKETED = regex.compile(
    r"[\[［〚⟦][^\[\]［］〚〛⟦⟧]*[\]］〛⟧]|[\[\]［］〚〛⟦⟧]"
    r"|[【〔][^【】〔〕\p{N}]*\p{N}[^【】〔〕]*[】〕]"  # without a number they are quotation marks
)
_EDITORS = regex.compile(r"\[(?:sic|\.{3}|…)\]", regex.IGNORECASE)


def tokenize(text: str) -> Tokens:
    """Return the tokens of a text that names regions by number; punctuation stands alone."""
    tokens: Tokens = []
    position = 0
    for match in _IDS.finditer(text):
        tokens += _WORD.findall(text[position : match.start()])
        ids = [int(number) for number in _NUMBER.findall(match[1])]
        tokens.append(list(dict.fromkeys(ids)))
        position = match.end()
    return tokens + _WORD.findall(text[position:])


def tokenize_handles(text: str, handles: Mapping[str, int]) -> Tokens:
    """Return the tokens of a text that names regions by phrases.

    Args:
        text: any case, letters composed or not; the article before a phrase may differ.
        handles: phrase, with its article -> region id. The longest match wins.
    """
    if not handles:
        return _WORD.findall(text)
    by_phrase = {_bare(phrase): number for phrase, number in handles.items()}
    longest_first = sorted(by_phrase, key=len, reverse=True)
    choices = "|".join(f"({_bounded(phrase)})" for phrase in longest_first)
    pattern = regex.compile(rf"(?:{_START}(?:the|an|a){SPACE}+)?(?:{choices})", regex.IGNORECASE)
    tokens: Tokens = []
    position = 0
    for match in pattern.finditer(text):
        tokens += _WORD.findall(text[position : match.start()])
        tokens.append([by_phrase[longest_first[match.lastindex - 1]]])
        position = match.end()
    return tokens + _WORD.findall(text[position:])


def _bounded(phrase: str) -> str:
    """Return the pattern of a phrase as whole words; unspaced scripts show no ends of words."""
    body = rf"{SPACE}+".join(map(pattern_of, phrase.split()))
    start = "" if regex.match(UNSPACED, phrase) else _START
    end = "" if regex.search(rf"{UNSPACED}{MARK}*$", phrase) else _END
    return rf"{start}{body}(?!{MARK}*\p{{M}}){end}"


def render(tokens: Iterable[Any]) -> str:
    """Return tokens as text, which `tokenize` turns into the same tokens."""
    return " ".join(
        f"[{', '.join(map(str, token))}]" if isinstance(token, list) else str(token)
        for token in tokens
    )


def region_ids(*parts: Tokens) -> list[int]:
    """Return the ids in token lists, each once, by first mention."""
    ids = [number for tokens in parts for t in tokens if isinstance(t, list) for number in t]
    return list(dict.fromkeys(ids))


def no_region(text: str) -> str:
    """Return the first square bracket of a text, with its content, that names no region, or ''.

    Brackets name regions in a corpus, and readers of it cannot tell `[man]`, `[1.5]` or `[1-3]`
    from a region. An editor's `[sic]` and `[...]` are read as words.
    """
    rest = _EDITORS.sub(" ", _IDS.sub(" ", text))
    match = _BRACKETED.search(rest)
    return match[0] if match else ""


def count_words(tokens: Tokens) -> float:
    """Return the number of words in tokens, without punctuation and ids."""
    return sum(num_words(token) for token in tokens if isinstance(token, str))


def normalized(tokens: Tokens) -> str:
    """Return tokens as text for comparing duplicates: no case, punctuation or invisible marks."""
    kept = [t for t in tokens if isinstance(t, list) or has_letters(str(t))]
    return fold(render(kept))


def same(one: Tokens, other: Tokens) -> bool:
    """Return whether two token lists differ in case, punctuation and composition at most."""
    return normalized(one) == normalized(other)


def _bare(phrase: str) -> str:
    return regex.sub(r"^(?:the|an|a)\s+", "", " ".join(phrase.lower().split()))
