"""Text of any script, cut only between characters as a reader sees them.

A letter and its combining marks, a Thai or Hindi syllable's signs, an emoji of several parts are
one such character (an extended grapheme cluster, Unicode standard annex 29): `\\w` of the standard
library stops at most marks. Marks that are not seen (joiners, directions) belong to the character
before them, as annex 29 has it for words.
"""

from __future__ import annotations

import random
import re
import unicodedata

import regex

# Parts of patterns of the library `regex`, which knows clusters (`\X`) and scripts.
SPACE = r"[\s\x1c-\x1f]"  # what `str.split` parts at
BASE = r"[\p{L}\p{N}_]"  # what `\w` of the standard library matches
_LEADING = r"[\p{M}\p{Cf}]"  # combining, or not seen
_PREPEND = r"\p{GCB=Prepend}"  # signs before a number, such as U+0600
MARK = rf"(?:(?!{_PREPEND}){_LEADING})"  # belongs to the character before it
CLUSTER = rf"(?:{_PREPEND}+(?={SPACE})|\X)"  # without the blank after a sign before a number
STARTS = rf"(?!{MARK}|[\p{{GCB=Extend}}\p{{GCB=SpacingMark}}])"  # where a character begins
LETTER = (
    rf"(?:(?={_LEADING}*{BASE}){CLUSTER}{MARK}*)"  # one letter or digit with what belongs to it
)
SIGN = rf"(?:(?!{SPACE}){CLUSTER}{MARK}*)"  # one character that is no letter: punctuation, an emoji
# Written without blanks between words.
UNSPACED = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Tham}"
    r"\p{Javanese}\p{Balinese}\p{Tai_Viet}\p{New_Tai_Lue}\p{Tai_Le}]"
)
_CLUSTER = regex.compile(r"\X")
_UNSPACED_LETTER = regex.compile(rf"(?={UNSPACED}){LETTER}")
_UNSEEN = regex.compile(r"[\p{Cf}\p{Variation_Selector}]")
# Signs are matched, too, so that no match begins inside one's cluster.
_WORD = regex.compile(rf"({LETTER}+)|{SIGN}")
_JOINED_WORD = regex.compile(rf"((?:{LETTER}|['’-]{STARTS})+)|{SIGN}")
_ALPHABETIC = regex.compile(rf"((?:(?={_LEADING}*\p{{L}}){CLUSTER}{MARK}*)+)|{LETTER}|{SIGN}")
_ALIKE = ("'’", "-‐‑")  # written for each other
LETTERS_PER_WORD = 2  # of unspaced scripts: the usual length of a Chinese word; Thai has 3 to 4


def words(text: str, *, hyphens: bool = False) -> list[str]:
    """Return the runs of letters and digits of a text; with `hyphens` also `'` and `-` in them."""
    return list(filter(None, (_JOINED_WORD if hyphens else _WORD).findall(text)))


def letter_runs(text: str) -> list[str]:
    """Return the runs of letters of a text: digits and `_` part them."""
    return list(filter(None, _ALPHABETIC.findall(text)))


def has_letters(text: str) -> bool:
    """Return whether there is a letter or a digit in a text, `_` not counted."""
    return any(c.isalnum() for c in text)


def num_words(word: str) -> float:
    """Return how many words a word is: unspaced scripts write several as one."""
    rest, unspaced = _UNSPACED_LETTER.subn("", word)
    return float(has_letters(rest) + unspaced / LETTERS_PER_WORD)


def units(text: str) -> list[tuple[str, float]]:
    """Return a text's words with weight 1, and letters of unspaced scripts with theirs."""
    weighted = []
    for word in words(text):
        at = 0
        for match in _UNSPACED_LETTER.finditer(word):
            weighted += [(word[at : match.start()], 1.0)] if match.start() > at else []
            weighted.append((match[0], 1 / LETTERS_PER_WORD))
            at = match.end()
        weighted += [(word[at:], 1.0)] if at < len(word) else []
    return weighted


def fold(text: str) -> str:
    """Return a key that is equal for texts that read the same.

    Case, precomposed or not, width, and invisible marks do not count: NFKC of the case folding of
    NFKD (Unicode standard, section 3.13, D146), without the characters of format.
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", _UNSEEN.sub("", text))
    return unicodedata.normalize("NFKC", decomposed.casefold())


def letters_only(text: str, keep: str = "") -> str:
    """Return a text without what is neither a letter, with its marks, nor in `keep`."""
    if text.isascii():
        return "".join(c for c in text if c.isalnum() or c in keep)
    characters = regex.findall(rf"{LETTER}|{SIGN}|{SPACE}", text)
    return "".join(c for c in characters if has_letters(c) or c in keep)


def shorten(text: str, most: int) -> str:
    """Return the beginning of a text of at most `most` code points, no character cut in two."""
    if len(text) <= most:
        return text
    end = 0
    for match in _CLUSTER.finditer(text):
        if match.end() > most:
            break
        end = match.end()
    return text[:end]


def pattern_of(text: str) -> str:
    """Return a pattern for a text however its letters are composed and its apostrophes curled."""
    parts = []
    for cluster in _CLUSTER.findall(text):
        forms = {cluster, *(unicodedata.normalize(f, cluster) for f in ("NFC", "NFD"))}
        forms.update(*(like for like in _ALIKE if cluster in like))
        choices = "|".join(map(regex.escape, sorted(forms)))
        parts.append(choices if len(forms) == 1 else f"(?:{choices})")
    return "".join(parts)


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
    for match in _END.finditer(text):
        before = text[start : match.start()].split()
        after = text[match.end() :].split(maxsplit=1)
        if before and after and _closes(before[-1], match[1], after[0]):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
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
