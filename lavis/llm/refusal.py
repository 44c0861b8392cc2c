"""Whether a text refuses what was asked, in place of doing it; one test for every kind of reply."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r"\bas an ai\b|\bas a language model\b|\b(?:can ?not|can't) be determined\b|"
    r"\bunable to (?:determine|answer)\b|\bnot enough information\b|"
    r"^\W*(?:i(?: am|'m) (?:sorry|unable|not able)|i apologi[sz]e|i can(?:not|'t| not)|sorry)\b",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Return whether a text, such as a caption, an answer or a whole reply, is a refusal."""
    return _REFUSAL.search(text) is not None
