"""Reasons why something is missing: their fixed phrases, their counts, and what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.llm.budget import Totals


def reason_phrase(reason: str) -> str:
    """Return the fixed phrase a reason begins with; HTTP errors keep their status."""
    if reason.startswith("HTTP "):
        return reason[:8]
    return reason.split(":")[0]


def count_phrases(counts: Mapping[str, int], most: int = 3) -> str:
    """Return reasons with their counts, the most frequent first: `HTTP 500: 3, refusal: 1`."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{reason}: {count:,}" for reason, count in ordered[:most])
    return shown + (f", and {len(ordered) - most} more reasons" if len(ordered) > most else "")


def spent(totals: Totals) -> dict[str, Any]:
    """Return what was spent over all starts, as summaries tell it."""
    return {
        "requests_sent": totals.requests,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "cost": round(totals.cost, 6),
        "requests_of_unknown_cost": totals.unknown,
    }
