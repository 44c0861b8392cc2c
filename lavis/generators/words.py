"""Words of a prompt that an image can show: no tagger, a list of those that it cannot."""

from __future__ import annotations

import re

# Function words, and the scaffolding of prompts ("Question: ... The answer is").
_PASSED_OVER = frozenset(
    "a an the this that these those some any each every all both no not nor and or but if then "
    "than so as of in on at by to for from with without into onto over under up down out off "
    "about after before between through during against is are was were be been being am do does "
    "did done doing have has had having will would can could shall should may might must i you he "
    "she it we they me him her us them my your his its our their mine yours hers ours theirs who "
    "whom whose which what when where why how there here also very too just only more most much "
    "many few less least such own same other another again ever never always often usually "
    "sometimes typically generally mostly commonly one ones thing things kind type sort lot get "
    "gets got go goes went make makes made let s t don doesn isn "
    "question answer answers context following choose select possible best correct true false yes "
    "picture image photo photograph".split()
)


def tokens(text: str) -> list[str]:
    """Return the words of a text in lower case; apostrophes and hyphens stay inside a word."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower().replace("’", "'"))


def content_words(text: str) -> list[str]:
    """Return the words left when function words and numbers are passed over, in order."""
    return [word for word in tokens(text) if word not in _PASSED_OVER and not word.isdigit()]
