"""Token lists of an LCK record: words, and lists of the region ids that stand for words.

Every problem raises `RecordError` with a reason that starts with a fixed phrase and a colon.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lavis.common.errors import REFUSALS, RecordError

_DIGITS = re.compile(r"-?\d{1,18}")
_LARGEST_ID = 10**18  # so that an id fits into 64 bits, and its text into a message
PARTS = ("question", "answer", "rationale")  # keys of tokens
Tokens = list[Any]  # words (str or numbers), and lists of region ids


def region_number(value: Any) -> int:
    """Return a region id, a number or its digits, as a number; raises `RecordError` for others."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_ID:
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        return int(value)
    raise RecordError(f"wrong type: region id {shown(value)} is not a whole number")


def read_region_ids(record: Mapping[str, Any], key: str) -> list[int]:
    """Return the ids of `region` or `region_all`, in order; none where the key is missing.

    Raises:
        RecordError: not a list of ids.
    """
    value = record.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordError(f"wrong type: {key} is {type(value).__name__}, expected a list of ids")
    return [region_number(item) for item in value]


def read_tokens(record: Mapping[str, Any], key: str) -> Tokens:
    """Return a token list; raises `RecordError` where missing, or not of words and lists of ids."""
    value = record.get(key)
    if value is None:
        raise RecordError(f"missing field: {key}")
    return check_tokens(value, key)


def check_tokens(value: Any, key: str) -> Tokens:
    """Return `value` with ids as numbers, or raise `RecordError` naming `key`."""
    if not isinstance(value, list):
        kind = type(value).__name__
        raise RecordError(f"wrong type: {key} is {kind}, expected a list of words and id lists")
    tokens: Tokens = []
    for item in value:
        if isinstance(item, list):
            tokens.append([region_number(part) for part in item])
        elif isinstance(item, float) and not math.isfinite(item):
            raise RecordError(f"wrong type: {key} holds {item}, which is no word")
        elif isinstance(item, (str, int, float)) and not isinstance(item, bool):
            tokens.append(item)
        else:
            raise RecordError(f"wrong type: {key} holds {shown(item)}, expected words and ids")
    return tokens


def mentioned(tokens: Iterable[Any]) -> list[int]:
    """Return the region ids in token lists, in order of first mention."""
    return list(dict.fromkeys(i for token in tokens if isinstance(token, list) for i in token))


def has_empty_rationale(record: Mapping[str, Any]) -> bool:
    """Return whether a record has a rationale without a word or a region of its `region`."""
    tokens = record.get("rationale")
    if "question" not in record or not isinstance(tokens, list):
        return False
    if any(not isinstance(token, list) and str(token).strip() for token in tokens):
        return False
    try:
        known = set(read_region_ids(record, "region"))
        return known.isdisjoint(mentioned(read_tokens(record, "rationale")))
    except RecordError:
        return False


def shown(value: Any) -> str:
    """Return a value as a message shows it, at most 60 characters."""
    try:
        text = repr(value)
    except REFUSALS:  # a number of 5000 digits
        return f"an odd {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
