"""What goes wrong with files and batch jobs: what a user sees, what is sent and counted, and what
the same command does once the fault is healed."""

import pytest
from batch_behaviours import CASES, TEXTS
from batch_script import BatchScript

from lavis.llm.base import ChatRequest
from lavis.llm.budget import read_totals
from lavis.llm.client import build_client
from lavis.llm.config import read_llm


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
    inputs = [server.files[job["input_file_id"]] for job in server.batches.values()]
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
