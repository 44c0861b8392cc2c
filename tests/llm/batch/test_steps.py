"""What goes wrong with files and batch jobs: what a user sees, what is sent and counted, and what
the same command does once the fault is healed."""

import pytest
from batch_behaviours import CASES, GONE, GOOD, LOST, ROOM, TEXTS
from batch_script import BatchScript

from lavis.llm.base import ChatRequest
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.money.ledger import read_totals

KEY = "sk-test-very-secret-0123456789"


def start(config, folder):
    """Return what a run says for each request, or how it ends."""
    said = {}
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}
    requests = [
        ChatRequest(t, [{"role": "user", "content": t}], max_tokens=20,
                    response_format=schema if folder.name == "schema" else None)
        for t in TEXTS
    ]  # fmt: skip
    try:
        with build_client(read_llm(config), folder) as client:
            for reply in client.complete(requests):
                said[reply.key] = "ok" if reply.ok else reply.error
    except Exception as error:
        return f"{type(error).__name__}: {str(error).removeprefix('llm: ')}"
    return [said.get(text, "?") for text in TEXTS]


def sent(server):
    inputs = list(map(server.input, server.batches))
    return len(inputs), sum(len(each.splitlines()) for each in inputs)


def matches(said, expected):
    if isinstance(said, str) or ":" in expected.split()[0] or "Stopped" in expected:
        return isinstance(said, str) and said.startswith(expected)
    words = expected.split()
    if len(words) != len(TEXTS):  # a phrase for all
        phrase = expected[: len(expected) // 3].strip()
        return all(phrase in each for each in said)
    return all(word.replace("_", " ") in each for word, each in zip(words, said, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_what_goes_wrong_with_batches(serve, settings, tmp_path, name):
    case = CASES[name]
    server = serve(case.answer or (lambda body, n: "fine"))
    server.script = BatchScript(**case.script)
    limits = {"poll_seconds": 0.01}
    config = settings(server, mode="batch", batch=limits, max_attempts=3, max_retry_wait=0.02)
    folder = tmp_path / ("schema" if "schema" in name else "run")
    said = start(config, folder)
    assert matches(said, case.says), said
    totals = read_totals(folder)
    assert (sent(server), totals.tokens, totals.unknown) == (case.sent, case.tokens, case.unknown)
    server.script = BatchScript()
    if case.heals:
        server.answer = lambda body, n: "fine"
    before = sent(server)
    said = start(config, folder)
    assert matches(said, "ok ok ok" if case.heals else case.says), said
    totals, after = read_totals(folder), sent(server)
    assert (after[0] - before[0], after[1] - before[1]) == case.again
    assert totals.tokens == case.total


@pytest.fixture
def batched(settings):
    def make(server, **more):
        limits = {"poll_seconds": 0.01, **more.pop("batch", {})}
        more = {"max_attempts": 3, "max_retry_wait": 0.02, **more}
        return settings(server, mode="batch", batch=limits, **more)

    return make


def test_results_that_never_come_are_charged_and_asked_again_at_the_second_start(
    serve, batched, tmp_path, caplog
):
    server = serve(lambda body, n: "fine")
    server.script.content = lambda name, n, data: GONE if "batch_0" in name else None
    config = batched(server)
    assert matches(start(config, tmp_path), "cannot be read " * 3)
    assert start(config, tmp_path) == ["ok"] * 3
    assert sent(server) == (2, 6)
    totals = read_totals(tmp_path)
    assert (totals.tokens, totals.unknown) == (3 * GOOD + 3 * LOST, 3)
    assert "3 answers of the server never came; they are counted at the most" in caplog.text


def test_a_job_of_another_key_is_not_made_again_at_once(serve, batched, tmp_path, monkeypatch):
    server = serve(lambda body, n: "fine")
    server.script.look = lambda job, n: (503, {"error": {"message": "down"}})
    config = batched(server)
    assert "EndpointStopped" in start(config, tmp_path)
    monkeypatch.setenv("LLM_TEST_KEY", "sk-another-key-000")
    server.script.look = lambda job, n: GONE if job["id"] == "batch_0" else None
    assert matches(start(config, tmp_path), "it was made with another key " * 3)
    assert sent(server) == (1, 3)
    monkeypatch.setenv("LLM_TEST_KEY", KEY)
    server.script.look = lambda job, n: None
    assert start(config, tmp_path) == ["ok"] * 3
    assert sent(server) == (1, 3) and read_totals(tmp_path).tokens == 3 * GOOD


def test_a_job_of_another_server_is_left_alone_and_stays_counted(serve, batched, tmp_path):
    first, second = serve(lambda body, n: "fine"), serve(lambda body, n: "fine")
    first.script.look = lambda job, n: (503, {"error": {"message": "down"}})
    start(batched(first), tmp_path)
    assert start(batched(second), tmp_path) == ["ok"] * 3
    assert read_totals(tmp_path).tokens == 3 * LOST + 3 * GOOD
    first.script.look = lambda job, n: None
    assert start(batched(first), tmp_path) == ["ok"] * 3
    assert sent(first) == (1, 3) and read_totals(tmp_path).tokens == 6 * GOOD


def test_what_was_never_handed_over_is_not_bought_for_a_changed_config(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    server.script.create = lambda n, body: (503, {"error": {"message": "down"}})
    assert "EndpointStopped" in start(batched(server), tmp_path)
    server.script.create = lambda n, body: None
    assert start(batched(server, model="another"), tmp_path) == ["ok"] * 3
    assert sent(server) == (1, 3)
    assert read_totals(tmp_path).tokens == 3 * GOOD
    assert b'"another"' in server.input("batch_0")


@pytest.mark.parametrize("lists", [True, False])
def test_a_job_whose_making_was_not_answered_is_looked_for(serve, batched, tmp_path, lists):
    server = serve(lambda body, n: "fine")
    server.script.made = lambda job: "cut" if job["id"] == "batch_0" else None
    if not lists:
        server.script.listed = lambda jobs: (405, {"detail": "Method Not Allowed"})
    assert start(batched(server), tmp_path) == ["ok"] * 3
    assert sent(server) == ((1, 3) if lists else (2, 6))
    assert read_totals(tmp_path).tokens == 3 * GOOD + (0 if lists else 3 * LOST)


def test_a_job_in_trouble_leaves_the_others_alone(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    server.script.polls = 20
    server.script.look = lambda job, n: (500, {"error": {"message": "oh"}}) if (
        job["id"] == "batch_0") else None  # fmt: skip
    said = start(batched(server, batch={"max_requests": 1}), tmp_path)
    assert said == ["stopped: batch job left for the next start: HTTP 500: oh", "ok", "ok"]
    server.script = BatchScript()
    assert start(batched(server), tmp_path) == ["ok"] * 3 and sent(server) == (3, 3)


def test_the_dearest_of_the_missing_are_charged(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    server.script.lines = lambda kind, lines: lines[:1]
    counts = {"request_counts": {"completed": 2, "failed": 0, "total": 3}, "status": "cancelled"}
    server.script.look = lambda job, n: job | counts if n > 1 else None
    requests = [ChatRequest(t, [{"role": "user", "content": t}], max_tokens=20) for t in
                ("a" * 100, "b", "c")]  # fmt: skip
    with build_client(read_llm(batched(server)), tmp_path) as client:
        replies = {reply.key[0]: reply for reply in client.complete(requests)}
    assert replies["c"].ok and replies["a"].failure == replies["b"].failure == "transient"
    totals = read_totals(tmp_path)  # 34 + 98 more bytes in the prompt, 20 of the reply
    assert (totals.requests, totals.tokens, totals.unknown) == (2, GOOD + 152, 1)


def test_caps_count_jobs_in_the_queue(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    config = batched(server) | {"caps": {"max_tokens": 3 * LOST}}
    server.script.look = lambda job, n: (503, {"error": {"message": "down"}})
    start(config, tmp_path)
    more = [ChatRequest("n", [{"role": "user", "content": "new"}], max_tokens=20)]
    server.script.look = lambda job, n: job | {"status": "queued"} if n < 20 else None
    with build_client(read_llm(config), tmp_path) as client:
        (reply,) = client.complete(more)  # waits until the others turn out cheaper
    assert reply.ok and read_totals(tmp_path).tokens == 4 * GOOD


def test_room_comes_when_an_own_job_ends(serve, batched, tmp_path):
    def create(n, body):
        running = [j for j in server.batches.values() if j["status"] == "in_progress"]
        return (400, {"error": ROOM}) if running else None

    server = serve(lambda body, n: "fine")
    server.script.create, server.script.polls = create, 30
    assert start(batched(server, batch={"max_requests": 1}), tmp_path) == ["ok"] * 3
    assert sent(server) == (3, 3)
    assert server.script.number[("create",)] <= 6  # the last waits for the second as well


def test_what_a_cap_holds_back_does_not_wait_for_jobs_that_are_left(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    server.script.content = lambda name, n, data: GONE
    config = batched(server) | {"caps": {"max_tokens": 3 * LOST - 1}}
    assert start(config, tmp_path).startswith("BudgetReached")
    assert sent(server) == (1, 2)


def test_requests_of_a_job_that_is_left_are_answered_whenever_they_come(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    server.script.look = lambda job, n: (503, {"error": {"message": "down"}})
    start(batched(server), tmp_path)
    server.script.look = lambda job, n: None
    server.script.content = lambda name, n, data: GONE
    one_by_one = batched(server, batch={"max_requests": 1, "max_jobs": 1})
    assert matches(start(one_by_one, tmp_path), "left for the next start " * 3)
    assert sent(server) == (1, 3)


def test_a_halt_leaves_jobs_at_the_server_to_the_next_start(serve, batched, tmp_path):
    server = serve(lambda body, n: "fine")
    server.script.look = lambda job, n: None if job["id"] == "batch_0" else (
        job | {"status": "in_progress"}
    )  # fmt: skip
    config = batched(server, batch={"max_requests": 1, "max_jobs": 2})
    replies = []
    requests = [ChatRequest(t, [{"role": "user", "content": t}], max_tokens=20) for t in TEXTS]
    with build_client(read_llm(config), tmp_path) as client:
        for reply in client.complete(requests):
            replies.append(reply)
            client._backend.halt()
    assert [reply.ok for reply in replies] == [True, False, False]
    assert all(reply.error.startswith("stopped: ") for reply in replies[1:])
    server.script = BatchScript()
    assert start(config, tmp_path) == ["ok"] * 3
    assert sent(server) == (3, 3) and read_totals(tmp_path).tokens == 3 * GOOD
