"""Whether a text is a refusal: one test for captions, answers and whole replies.

Refusals speak of themselves: an apology *and* what cannot be done, at the start of a sentence, or
what the writer is (`lavis/configs/llm/refusals.yaml`). Somebody in the image may be sorry, too, so
an apology is one only if it is the whole text, and quoted or reported speech is none
(`"I'm sorry," says [0]`; `I'm sorry for being late, he seems to say`).
"""

from __future__ import annotations

import functools
import re

from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.text import fold
from lavis.llm.tables import Alternatives, expand, load_table

# None goes over a further opening mark, nor `_REPORTED` over many marks: time would be quadratic.
_QUOTATION = re.compile(
    r"\"[^\"]*\"|“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|「[^「」]*」|『[^『』]*』|《[^《》]*》"
)
_VERB = (
    r"(?:says?|said|saying|thinks?|thought|tells?|told|whispers?|whispered|shouts?|shouted|"
    r"replies|replied|answers|answered|explains?|explained|apologi[sz]es|apologi[sz]ed|writes|wrote)"
)
_WHO = r"(?:he|she|they|it|one|(?:the|an?|his|her|their) \w+|\[\d+\])"
_REPORTED = re.compile(
    rf"[,'!?.…]\W{{0,20}}{_WHO}(?: \w+){{0,3}}? (?:{_VERB}|say|think|mean|be saying|be thinking)\b|"
    rf"[,'!?.…]\W{{0,20}}{_VERB} (?:\[\d+\]|the |an? |he\b|she\b|they\b|to )"
)
_MAX_CHARACTERS = 20_000  # characters that are looked at; an answer has far fewer
_APOSTROPHES = str.maketrans("’‘ʼ`´＇", "''''''")


@dataclass(frozen=True, config=STRICT)
class _Language:
    language: str
    sorry: Alternatives
    cannot: Alternatives


@dataclass(frozen=True, config=STRICT)
class _Refusals:
    fragments: dict[str, Alternatives]
    writer: Alternatives
    sentences: Alternatives
    languages: list[_Language]


@functools.cache
def _refusals() -> tuple[re.Pattern[str], ...]:
    table = load_table("refusals", _Refusals)
    patterns = [table.writer, table.sentences]
    for each in table.languages:
        patterns.append(rf"%(start)s(?:{each.sorry})[^\n]{{0,60}}?(?:{each.cannot})")
        patterns.append(rf"^\W*(?:{each.sorry})\W*$")
    return tuple(re.compile(expand(pattern, table.fragments)) for pattern in patterns)


def is_refusal(text: str) -> bool:
    """Return whether a text is a refusal."""
    plain = fold(text[:_MAX_CHARACTERS].translate(_APOSTROPHES))
    unquoted = _QUOTATION.sub(" … ", plain)
    if not any(c.isalnum() for c in unquoted):
        unquoted = plain.strip('"“”„«»「」『』 ') if _speaks_of_its_task(plain) else ""
    if _REPORTED.search(unquoted):
        return False
    return any(pattern.search(unquoted) for pattern in _refusals())


def _speaks_of_its_task(text: str) -> bool:
    """Return whether a text that is one quotation is a quoted refusal."""
    return bool(
        re.search(r"\b(?:request|assist|image|picture|photo|as an ai|language model)", text)
    )
