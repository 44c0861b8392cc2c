"""Folders of jobs: what is damaged is set aside, and nothing of it is bought again in silence."""

import json

import pytest
from batch_script import BatchScript

from lavis.llm.base import ChatRequest
from lavis.llm.batch.job import Job, JobFile, request_line, unfinished_jobs
from lavis.llm.client import build_client
from lavis.llm.config import read_llm
from lavis.llm.endpoint.failures import EndpointStopped
from lavis.llm.money.ledger import read_totals

GOOD, LOST = 15, 54  # tokens of an answer, and of a request whose outcome nobody knows
KEYS = ("a", "b", "c")


def made(folder, keys=KEYS):
    file = JobFile(folder)
    for key in keys:
        file.add(key, request_line(key, {"messages": [key]}), 0)
    return file.seal("http://x/v1", "")


def test_lines_are_left_out_under_the_same_name(tmp_path):
    job = made(tmp_path)
    job.leave_out({"b"})
    (again,) = unfinished_jobs(tmp_path)
    assert (again.name, again.state, again.part) == (job.name, "sealed", 1)
    assert list(again.offsets()) == ["a", "c"] and again.body("c") == {"messages": ["c"]}
    assert job.offsets() == again.offsets()
    again.leave_out({"a", "c"})
    assert not list(unfinished_jobs(tmp_path))


def test_damaged_lines_of_an_input_are_out(tmp_path):
    job = made(tmp_path)
    content = job.input.read_bytes().splitlines(keepends=True)
    job.input.write_bytes(content[0] + b"\x00\n" + b'{"custom_id": "b"}\n[]\n' + content[2][:-9])
    assert list(Job(folder=job.folder).offsets()) == ["a"]
    job.input.unlink()
    assert not Job(folder=job.folder).offsets()


def test_a_file_that_is_dropped_leaves_nothing(tmp_path):
    file = JobFile(tmp_path)
    file.discard()
    file.add("a", b"{}\n", 0)
    file.discard()
    assert not list(tmp_path.iterdir())


def go(config, folder):
    requests = [ChatRequest(k, [{"role": "user", "content": k * 2}], max_tokens=20) for k in KEYS]
    with build_client(read_llm(config), folder) as client:
        return {reply.key: reply.text or reply.failure for reply in client.complete(requests)}


@pytest.fixture
def left(serve, settings, tmp_path):
    """Return a server with a job, the config, and the job's folder; the run has ended."""
    server = serve(lambda body, n: "fine")
    server.script.polls = 10**9
    server.script.look = lambda job, n: (503, {"error": {"message": "down"}})
    config = settings(server, mode="batch", batch={"poll_seconds": 0.01}, max_attempts=2)
    with pytest.raises(EndpointStopped):
        go(config, tmp_path)
    server.script = BatchScript()
    (folder,) = (tmp_path / "batches").iterdir()
    return server, config, folder


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"state": "sold"}', b'{"attempts": [1]}', b"\xff\xfe",
     b'{"x": 1}', b'{"state": "created"}', b'{"part": -1}', b'{"file_id": 7}'],
)  # fmt: skip
def test_the_server_is_asked_for_a_job_whose_state_is_damaged(left, tmp_path, content, caplog):
    server, config, folder = left
    (folder / "job.json").write_bytes(content)
    assert go(config, tmp_path) == dict.fromkeys(KEYS, "fine")
    assert len(server.batches) == 1 and read_totals(tmp_path).tokens == 3 * GOOD
    assert "job.json: damaged" in caplog.text and "Traceback" not in caplog.text


def test_requests_whose_lines_are_damaged_are_charged_and_asked_again(left, tmp_path, caplog):
    server, config, folder = left
    lines = (folder / "input.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "input.jsonl").write_bytes(lines[0] + lines[1][:50])
    assert go(config, tmp_path) == dict.fromkeys(KEYS, "fine")
    assert [len(server.input(job).splitlines()) for job in server.batches] == [3, 2]
    totals = read_totals(tmp_path)
    assert (totals.tokens, totals.unknown) == (3 * GOOD + 2 * LOST, 2)
    assert "2 requests of unfinished batch jobs are damaged" in caplog.text


def test_result_files_that_are_broken_on_disk_are_fetched_again(left, tmp_path):
    server, config, folder = left
    (folder / "output.jsonl").write_text('{"custom_id": "x"')
    (folder / "error.jsonl").write_text('{"error": "boom"}')
    assert go(config, tmp_path) == dict.fromkeys(KEYS, "fine")
    assert len(server.batches) == 1 and read_totals(tmp_path).tokens == 3 * GOOD


def test_a_request_that_went_on_to_a_later_job_is_not_bought_for_the_earlier(left, tmp_path):
    """A kill while results are read: the failed line is in a later job, the earlier is not done."""
    server, config, folder = left
    server.answer = lambda body, n: (429, {"error": {"message": "busy"}}) if n == 1 else "fine"
    state = (folder / "job.json").read_text()
    assert go(config, tmp_path) == dict.fromkeys(KEYS, "fine")
    assert len(server.batches) == 2
    later = next(each for each in (tmp_path / "batches").iterdir() if each != folder)
    content = json.loads((later / "job.json").read_text())
    (later / "job.json").write_text(json.dumps(content | {"state": "created"}))
    (folder / "job.json").write_text(state)
    late = {"status": "in_progress", "output_file_id": None}
    server.script.look = lambda job, n: job | late if job["id"] == "batch_1" and n < 9 else None
    assert go(config | {"cache_dir": str(tmp_path / "empty")}, tmp_path) == dict.fromkeys(
        KEYS, "fine"
    )
    assert len(server.batches) == 2 and read_totals(tmp_path).tokens == 3 * GOOD
