"""When a run stops: failures alike, many of any kind, and what tells nothing of the server."""

from string import ascii_lowercase

from lavis.llm.base import ChatReply
from lavis.llm.endpoint.breaker import PATIENCE, Breaker
from lavis.llm.endpoint.failures import Problem


def failed(key, error, failure="transient"):
    return ChatReply(key, error=error, failure=failure)


def stops_at(breaker, replies):
    """Return how many replies, judged one by one, stop a run; 0 where none does."""
    return next((n for n, reply in enumerate(replies, 1) if breaker.judge([reply])), 0)


def test_numbers_and_quotations_make_no_other_failure():
    errors = [f"HTTP 500: request req-{n}a of '{c}' failed" for n, c in enumerate(ascii_lowercase)]
    assert stops_at(Breaker(4), (failed(e, e) for e in errors)) == 4


def test_failures_of_many_kinds_stop_a_run_later():
    errors = [f"HTTP 500: {letter * 3}" for letter in ascii_lowercase]
    assert stops_at(Breaker(4), (failed(e, e) for e in errors)) == 12
    breaker = Breaker(4)
    assert stops_at(breaker, (failed(e, e) for e in errors[:11])) == 0
    assert breaker.judge([failed("x", "HTTP 500: x"), ChatReply("y", "fine")]) == ""
    assert stops_at(breaker, (failed(e, e) for e in errors)) == 12


def test_refusals_tell_something_until_the_server_has_worked(tmp_path):
    refusals = [failed(f"{n}", "HTTP 413: too large", "refused") for n in range(9)]
    assert stops_at(Breaker(4), refusals) == 4
    assert stops_at(Breaker(4, has_worked=True), refusals) == 0
    filtered = [failed(f"{n}", "content filter: no", "refused") for n in range(9)]
    assert stops_at(Breaker(4), filtered) == 0


def test_what_failed_at_an_earlier_start_hardly_counts(tmp_path):
    path = tmp_path / "given_up.txt"
    failures = [failed(f"k{n}", "HTTP 500: boom") for n in range(60)]
    assert stops_at(Breaker(4, path), failures[:3]) == 0
    assert path.read_text().split() == ["k0", "k1", "k2"]
    assert stops_at(Breaker(4, path), failures) == 3 + 4  # three known ones weigh next to nothing
    for reply in failures:
        Breaker(99, path).judge([reply])
    assert stops_at(Breaker(4, path), failures) == 40


def test_failed_attempts_mean_something_once_they_last():
    now = 0.0
    breaker = Breaker(3, clock=lambda: now)
    lost, busy = Problem("transient", "x"), Problem("transient", "HTTP 429: busy")
    assert not any(breaker.attempt_failed(lost) for _ in range(9))
    now = PATIENCE
    assert breaker.attempt_failed(lost) and not breaker.attempt_failed(busy)
    breaker.attempt_succeeded()
    assert not breaker.attempt_failed(lost)
