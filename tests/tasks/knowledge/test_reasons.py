"""Reasons: their fixed phrases, counts, examples, and what was spent."""

from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.budget import BudgetReached
from lavis.llm.money.ledger_file import Totals
from lavis.tasks.knowledge.reasons import (
    ReasonCounts,
    count_phrases,
    how_to_go_on,
    plural,
    reason_phrase,
    spent_figures,
)


def test_a_reason_is_counted_by_what_stands_before_its_colon():
    assert reason_phrase("content filter: violence (high)") == "content filter"
    assert reason_phrase("HTTP 500: boom: again") == "HTTP 500"
    assert reason_phrase("no item") == "no item"


def test_counts_keep_the_first_example_of_each_reason():
    counts = ReasonCounts()
    counts.note("rejected", "refusal: I cannot", "a.png", "captions")
    counts.note("rejected", "refusal: I will not", "b.png", "captions")
    counts.note("left", "HTTP 500: boom", "c.png")
    assert counts.rejected == {"captions: refusal": 2} and counts.left == {"HTTP 500": 1}
    assert counts.examples == {
        ("rejected", "captions: refusal"): "a.png", ("left", "HTTP 500"): "c.png",
    }  # fmt: skip


def test_the_most_frequent_reasons_come_first():
    counts = {"a": 1, "b": 1200, "c": 3, "d": 2}
    assert count_phrases(counts) == "b: 1,200, c: 3, d: 2, and 1 more reasons"
    assert count_phrases({"a": 1}) == "a: 1" and count_phrases({}) == ""
    assert (plural(1, "request"), plural(1200, "request")) == ("1 request", "1,200 requests")


def test_only_a_cap_is_mended_by_a_higher_one():
    assert "higher cap" in how_to_go_on(BudgetReached("max_cost is reached"))
    assert how_to_go_on(EndpointStopped("gone")) == ""


def test_reservations_are_told_only_where_there_are_any():
    spent = Totals(requests=3, prompt_tokens=10, completion_tokens=4, cost=0.1234567, unknown=1)
    figures = spent_figures(spent, Totals())
    assert figures == {
        "requests_sent": 3, "prompt_tokens": 10, "completion_tokens": 4, "cost": 0.123457,
        "requests_of_unknown_cost": 1,
    }  # fmt: skip
    held = spent_figures(spent, Totals(requests=2, prompt_tokens=5, completion_tokens=6, cost=0.5))
    assert (held["requests_reserved"], held["tokens_reserved"], held["cost_reserved"]) == (
        2,
        11,
        0.5,
    )
