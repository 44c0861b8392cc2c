"""Why texts are missing: fixed phrases, their counts and examples; what ends a job; money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from lavis.common.errors import ConfigError
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger_file import Totals

STOPS = (BudgetReached, EndpointStopped, ConfigError)
"""What ends a job early: a cap, a server that is gone, a wrong key. What is finished is kept."""

Verdict = Literal["kept", "rejected", "left"]
"""What became of a text: written; missing for a reason that stays; asked for by the next start."""


def reason_phrase(reason: str) -> str:
    """Return the fixed phrase a reason begins with; HTTP errors keep their status."""
    if reason.startswith("HTTP "):
        return reason[:8]
    return reason.split(":")[0]


class ReasonCounts:
    """How often texts are missing for each reason, and the first example of each."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.examples: dict[tuple[str, str], str] = {}

    def note(self, verdict: Verdict, reason: str, example: str, source: str = "") -> None:
        """Count a missing text; `source` stands before its phrase."""
        phrase = f"{source}: {reason_phrase(reason)}" if source else reason_phrase(reason)
        (self.left if verdict == "left" else self.rejected)[phrase] += 1
        self.examples.setdefault((verdict, phrase), example)


def count_phrases(counts: Mapping[str, int], most: int = 3) -> str:
    """Return reasons with their counts, the most frequent first: `HTTP 500: 3, refusal: 1`."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{reason}: {count:,}" for reason, count in ordered[:most])
    return shown + (f", and {len(ordered) - most} more reasons" if len(ordered) > most else "")


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: `1 request`, `1,200 requests`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def how_to_go_on(stop: Exception) -> str:
    """Return the end of the sentence about a stop that a higher cap mends."""
    return "; start again with a higher cap to go on" if isinstance(stop, BudgetReached) else ""


def spent_figures(spent: Totals, reserved: Totals | None = None) -> dict[str, Any]:
    """Return what all starts spent, unknown costs at their bound, and what is `reserved`."""
    figures: dict[str, Any] = {
        "requests_sent": spent.requests,
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "cost": round(spent.cost, 6),
        "requests_of_unknown_cost": spent.unknown,
    }
    if reserved is not None and reserved.requests:
        figures |= {
            "requests_reserved": reserved.requests,
            "tokens_reserved": reserved.tokens,
            "cost_reserved": round(reserved.cost, 6),
        }
    return figures
