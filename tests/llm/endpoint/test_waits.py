"""Waits that a server asks for: odd ones, long ones, and those of many threads."""

import email.utils
import logging
import time

import pytest
from chat_requests import ask, complete

from lavis.llm.endpoint.failures import EndpointStopped


def test_a_long_wait_stops_the_run_and_says_until_when(serve, settings, tmp_path):
    server = serve(lambda body, n: (429, {"error": {"message": "later"}}, {"Retry-After": "86400"}))
    _, error = complete(settings(server), tmp_path, [ask(f"q{i}") for i in range(40)])
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86400))
    with pytest.raises(EndpointStopped, match=rf"asks for one of 24 h, longer than .* from {day}"):
        raise error
    date = email.utils.formatdate(time.time() + 4000, usegmt=True)
    server.answer = lambda body, n: (503, {}, {"Retry-After": date})
    _, error = complete(settings(server), tmp_path, [ask("q")])
    assert "asks for one of 67 min" in str(error)


@pytest.mark.parametrize("value", ["1e300", "nan", "-3", "soon", "inf", "9" * 500])
def test_odd_waits_are_as_none(serve, settings, tmp_path, value):
    busy = (429, {"error": {"message": "busy"}}, {"Retry-After": value})
    server = serve(lambda body, n: busy if n < 3 else "fine")
    replies, error = complete(settings(server), tmp_path, [ask("q")])
    assert error is None and replies["q"].text == "fine"


def test_a_wait_is_told_once_for_all_threads(serve, settings, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lavis.llm.endpoint.backend.LOGGED_SECONDS", 0.5)
    busy = (429, {"error": {"message": "busy"}}, {"Retry-After": "1"})
    server = serve(lambda body, n: busy if n == 1 else "fine")
    with caplog.at_level(logging.WARNING):
        complete(settings(server), tmp_path, [ask(f"q{i}") for i in range(8)])
    assert len(caplog.records) in (1, 2)  # a thread may come late on a machine with much to do
    assert caplog.records[0].getMessage().startswith("HTTP 429: busy; waiting 1")
