"""Runs whose endpoint fails: what is kept, what is said, and what the same command does next."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from generation_run import GOOD, OTHER, image, items, lines, number_of, run

FLAGGED = (400, {"error": {"code": "content_filter", "message": "the prompt was flagged"}})
WRONG_KEY = (401, {"error": {"message": "Incorrect API key provided"}})


@pytest.fixture
def job(tmp_path, settings):
    """Return a function that writes data and a run file; the same folder each time."""

    def make(at, images=4, **llm):
        records = tmp_path / "words.jsonl"
        records.write_text("".join(json.dumps(image(i)) + "\n" for i in range(images)))
        prompts = [{"source": "s", "num_items": 2}]
        node = {
            "llm": settings(at, max_attempts=2, concurrency=1, **llm),
            "generate": {"records": [str(records)], "prompts": prompts},
            "run": {"output_dir": str(tmp_path / "out")},
        }
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(node))
        return path

    return make


class Sent:
    """Counts the requests about each image since it was last asked."""

    def __init__(self, server):
        self.server, self.before = server, 0

    def since(self):
        bodies = self.server.bodies[self.before :]
        self.before = len(self.server.bodies)
        return dict(Counter(number_of(body) for body in bodies))


def summary(tmp_path):
    return json.loads((tmp_path / "out/summary.json").read_text())


def test_one_image_that_always_fails_is_set_aside_and_the_rest_goes_on(
    serve, job, tmp_path, capsys
):
    broken = {2}
    server = serve(lambda body, n: (500, {}) if number_of(body) in broken else items(GOOD))
    path, sent = job(server), Sent(server)
    assert run(path) == 1
    assert "not complete: 1 of 4 requests left (HTTP 500: 1)" in capsys.readouterr().err
    assert sent.since() == {0: 1, 1: 1, 2: 2, 3: 1}
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 3
    (left,) = lines(tmp_path / "out/rejects.jsonl")
    assert (left["line"], left["left"], left["kind"]) == (3, True, "left")
    assert left["reason"].startswith("HTTP 500")
    told = summary(tmp_path)
    assert (told["complete"], told["left_for_next_start"], told["rejected"]) == (False, 1, 0)
    assert told["left_by_reason"] == {"HTTP 500": 1}
    assert run(path) == 1 and sent.since() == {2: 2}
    broken.clear()
    assert run(path) == 0 and sent.since() == {2: 1}
    assert summary(tmp_path)["complete"] and lines(tmp_path / "out/rejects.jsonl") == []


def test_what_a_server_refused_is_asked_again_where_it_is_asked_otherwise(
    serve, job, tmp_path, capsys
):
    flagged = {1}
    server = serve(lambda body, n: FLAGGED if number_of(body) in flagged else items(GOOD))
    path, sent = job(server), Sent(server)
    assert run(path) == 0
    assert "complete with 1 reject (content filter: 1)" in capsys.readouterr().err
    told = summary(tmp_path)
    assert told["complete"] and told["rejected_by_kind"] == {"endpoint": 1}
    assert sent.since() == {0: 1, 1: 1, 2: 1, 3: 1}
    flagged.clear()
    assert run(path) == 0 and sent.since() == {}
    flagged.add(1)
    other = ["--options", "llm.token_field=max_completion_tokens"]
    assert run(path, *other) == 0 and sent.since() == {1: 1}
    assert run(path, *other) == 0 and sent.since() == {}
    flagged.clear()
    assert run(path, "--retry-rejects", *other) == 0 and sent.since() == {1: 1}
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 4


def test_useless_replies_are_asked_again_under_another_seed_where_that_is_wanted(
    serve, job, tmp_path
):
    seeds = {}

    def answer(body, n):
        seeds.setdefault(number_of(body), []).append(body["seed"])
        if number_of(body) == 1 and body["seed"] < 44:
            return "no JSON"
        if number_of(body) == 2 and body["seed"] < 43:
            return items(("Why is [7] here?", *GOOD[1:]))
        return items(GOOD, ("Why is [7] here?", *GOOD[1:]))  # one of two is of use

    server = serve(answer)
    path, sent = job(server), Sent(server)
    assert run(path) == 0
    assert summary(tmp_path)["rejected_by_kind"] == {"item": 3, "reply": 1}
    assert sent.since() == {0: 1, 1: 2, 2: 1, 3: 1}  # one repair
    assert run(path, "--retry-rejects") == 0
    assert sent.since() == {1: 2, 2: 1} and len(lines(tmp_path / "out/corpus.jsonl")) == 3
    assert run(path) == 0 and sent.since() == {}
    assert run(path, "--retry-rejects") == 0
    assert sent.since() == {1: 1} and len(lines(tmp_path / "out/corpus.jsonl")) == 4
    assert seeds == {0: [42], 1: [42, 42, 43, 43, 44], 2: [42, 43], 3: [42]}


def test_records_of_two_models_are_not_mixed(serve, job, tmp_path, capsys):
    server = serve(lambda body, n: items(GOOD))
    assert run(job(server)) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}
    assert run(job(server, model="other")) == 2
    said = capsys.readouterr().err
    assert "llm.model is" in said and "choose another run.output_dir" in said
    assert "llm.server" not in said
    moved = serve(lambda body, n: items(GOOD))
    assert run(job(moved)) == 2
    assert f"where only its address moved, set llm.server='{server.url}'" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}
    assert run(job(moved, server=server.url)) == 0 and moved.bodies == []


@pytest.mark.parametrize("fault", ["endpoint", "reply"])
def test_a_folder_without_records_goes_on_with_another_model(serve, job, tmp_path, capsys, fault):
    def answer(body, n):
        if body["model"] == "good":
            return items(GOOD, OTHER)
        return FLAGGED if fault == "endpoint" else "no JSON"

    server = serve(answer)
    assert run(job(server, model="bad")) == 1
    assert "no request gave a record" in capsys.readouterr().err
    told = summary(tmp_path)
    assert not told["complete"] and told["rejected_by_kind"] == {fault: 4}
    assert run(job(server, model="good")) == 0
    told = summary(tmp_path)
    assert (told["complete"], told["records"], told["rejected"]) == (True, 8, 0)


def test_a_wrong_key_ends_the_run_with_all_that_was_finished(serve, job, tmp_path, capsys):
    withdrawn = {2, 3}
    server = serve(lambda body, n: WRONG_KEY if number_of(body) in withdrawn else items(GOOD))
    path, sent = job(server), Sent(server)
    assert run(path) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: llm") and "401" in said
    assert "not complete: 2 of 4 requests left" in said
    told = summary(tmp_path)
    assert not told["complete"] and "401" in told["stopped_by"] and told["records"] == 2
    assert sum(told["left_by_reason"].values()) == 2 and told["rejected"] == 0
    assert len(lines(tmp_path / "out/corpus.jsonl")) == 2
    sent.since()
    withdrawn.clear()
    assert run(path) == 0 and sent.since() == {2: 1, 3: 1}
    assert summary(tmp_path)["complete"] and summary(tmp_path)["stopped_by"] is None


def test_a_cap_is_named_with_what_is_left(serve, job, tmp_path, capsys):
    server = serve(lambda body, n: items(GOOD))
    path = job(server, caps={"max_requests": 3})
    assert run(path) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "not complete: max_requests (3) is reached" in said
    assert "1 of 4 requests left; start again with a higher cap" in said
    assert Path(tmp_path / "out/corpus.jsonl").read_text().count("\n") == 3


def test_a_run_without_its_key_changes_nothing(serve, job, tmp_path, monkeypatch, capsys):
    server = serve(lambda body, n: items(GOOD))
    assert run(job(server)) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}
    path = job(server, api_key_env="NOT_SET", base_url=None, server=server.url)
    assert run(path) == 2 and "NOT_SET is not set" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in (tmp_path / "out").glob("*.*")}


@pytest.mark.parametrize(
    ("fault", "said"),
    [((500, {}), "HTTP 500"), ((413, {"error": {"message": "too large"}}), "HTTP 413")],
)
def test_a_server_that_only_fails_stops_the_run_and_a_mended_one_is_asked_for_all(
    serve, job, tmp_path, capsys, fault, said
):
    replies = [fault]
    server = serve(lambda body, n: replies[0])
    path, sent = job(server, images=12, max_alike_failures=5), Sent(server)
    assert run(path) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "in a row failed alike" in last and said in last
    assert "12 of 12 requests left" in last
    told = summary(tmp_path)
    assert not told["complete"] and told["rejected"] == 0 and told["left_for_next_start"] == 12
    assert len(sent.since()) < 12
    replies[0] = items(GOOD)
    assert run(path) == 0 and sent.since() == dict.fromkeys(range(12), 1)
    assert summary(tmp_path)["complete"]


def test_rejects_that_are_refused_anew_are_rejects_once_the_server_has_worked(serve, job, tmp_path):
    refused = (413, {"error": {"message": "too large"}})
    server = serve(lambda body, n: refused if number_of(body) % 2 else items(GOOD))
    path, sent = job(server, images=24, max_alike_failures=5), Sent(server)
    assert run(path) == 0 and len(sent.since()) == 24
    assert run(path, "--retry-rejects") == 0 and len(sent.since()) == 12
    assert summary(tmp_path)["rejected_by_kind"] == {"endpoint": 12}
    assert run(path) == 0 and sent.since() == {}


def test_refusals_before_an_answer_stay_rejects_when_the_server_dies(serve, job, tmp_path):
    def answer(body, n):
        number = number_of(body)
        return (413, {}) if number == 0 else items(GOOD) if number == 1 else (500, {})

    path = job(serve(answer), images=12, max_alike_failures=3)
    assert run(path) == 1
    told = summary(tmp_path)
    assert told["records"] == 1 and told["rejected_by_kind"] == {"endpoint": 1}
    assert told["left_for_next_start"] == 10
