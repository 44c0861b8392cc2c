"""Sentences of a text, found offline by rules of our own."""

from __future__ import annotations

import random
import re

EMPTY_PROMPT = "random"  # stands for a text without words, as in the published training code

# A run of closing marks, then the quotes and brackets that close with it, then a blank.
_END = re.compile(r"([.!?…]+)(['\"”’»)\]}]*)(?=\s)")
_TITLES = frozenset(
    "mr mrs ms dr prof rev hon gen col maj capt lt sgt cmdr adm gov sen rep pres messrs mme mlle "
    "vs cf no nos vol vols fig figs eq eqs sec chap pp e.g i.e viz ca approx".split()
)  # more of the sentence follows them, in upper case too
_ABBREVIATIONS = frozenset(
    "etc al inc ltd co corp bros ave blvd rd st mt ft jr sr dept univ assn est "
    "jan feb mar apr jun jul aug sep sept oct nov dec".split()
)  # some of them close a sentence
_STARTERS = frozenset(
    "the a an it he she they we i you in on at this that these those there but and so if when "
    "after before then however what who where why how his her their our my its as for to".split()
)


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, blanks at their ends removed; a text without words gives [].

    A full stop ends a sentence unless it stands in a number or a name (`3.5`, `example.org`), after
    an initial, or after an abbreviation; an abbreviation that can close a sentence (`etc.`,
    `U.S.`) closes it before a word that often opens one. An ellipsis closes it before upper case.
    Quotes and brackets that close after the mark stay with it.
    """
    sentences, start = [], 0
    for found in _END.finditer(text):
        before = text[start : found.start()].split()
        after = text[found.end() :].split(maxsplit=1)
        if before and after and _closes(before[-1], found[1], after[0]):
            sentences.append(text[start : found.end()].strip())
            start = found.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def _closes(word: str, mark: str, following: str) -> bool:
    """Return whether a sentence ends after `word` + `mark`, before `following`."""
    if "!" in mark or "?" in mark:
        return True
    following = following.lstrip("'\"“‘«([{")
    if len(mark) > 1 or mark == "…":
        return following[:1].isupper()
    word = word.lstrip("'\"“‘«([{").lower()
    if word in _TITLES:
        return word == "no" and not following[:1].isdigit()  # "No. 5", but "He said no. We left."
    is_dotted = re.fullmatch(r"(?:[^\W\d]\.)*[^\W\d]", word) and word != "i"  # U.S., an initial
    if word in _ABBREVIATIONS or is_dotted:
        return following[:1].isupper() and re.split(r"\W", following.lower())[0] in _STARTERS
    return True


def random_sentence(text: str, rng: random.Random) -> str:
    """Return one sentence of a text, each as likely: the prompt of a training text."""
    sentences = split_sentences(text)
    return rng.choice(sentences) if sentences else EMPTY_PROMPT
