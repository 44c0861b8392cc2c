"""Reasons why something is missing: their fixed phrases, their counts, and what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger_file import Totals


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


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: `1 request`, `1,200 requests`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def how_to_go_on(stop: Exception) -> str:
    """Return what ends the sentence about a stop that a higher cap mends."""
    return "; start again with a higher cap to go on" if isinstance(stop, BudgetReached) else ""


def money(spent: Totals, reserved: Totals | None = None) -> dict[str, Any]:
    """Return what was spent over all starts, as summaries tell it.

    Args:
        spent: settled, with what nobody told the cost of at its bound.
        reserved: set aside for requests that a server still works on (a batch's).
    """
    told: dict[str, Any] = {
        "requests_sent": spent.requests,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "cost": round(spent.cost, 6),
        "requests_of_unknown_cost": spent.unknown,
    }
    if reserved is not None and reserved.requests:
        told |= {
            "requests_reserved": reserved.requests,
            "tokens_reserved": reserved.tokens,
            "cost_reserved": round(reserved.cost, 6),
        }
    return told
