"""The whole command against every behaviour of the table, and what the same command does then."""

import functools
import json
import ssl
from collections import Counter

import pytest
import yaml
from batch_script import BatchScript
from behaviours import CLASSES, IMAGES, ITEMS, MONEY, PAGE, ROWS, image_of, table
from generation_run import image, lines, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavis.llm.prompts import Prompts
from lavis.tasks.knowledge import generation, generation_results

CONTEXT = functools.cache(ssl.create_default_context)
PROMPTS = functools.cache(Prompts)


@pytest.fixture(autouse=True)
def quick(monkeypatch, unknown_names):
    """Leave out of the many starts what takes most of their time and has tests of its own."""
    monkeypatch.setattr(ssl, "create_default_context", CONTEXT)
    monkeypatch.setattr(generation, "Prompts", PROMPTS)
    monkeypatch.setattr(generation_results, "write_page", lambda *args, **options: None)


@pytest.fixture
def llm_of(request):
    """Return the fixture that makes the `llm` section: `settings` is also Hypothesis' name."""
    return request.getfixturevalue("settings")


def write_job(folder, llm, images=IMAGES):
    """Write data and a run file; returns the file's path."""
    records = folder / "words.jsonl"
    records.write_text("".join(json.dumps(image(i)) + "\n" for i in range(images)))
    prompts = [{"source": "s", "num_items": 1}]
    node = {
        "llm": {"max_attempts": 3, "max_retry_wait": 0.02, **llm},
        "generate": {"records": [str(records)], "prompts": prompts},
        "run": {"output_dir": str(folder / "out")},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(node))
    return path


def batch_of(row):
    """Return settings of a row's mode."""
    return {"mode": "batch", "batch": {"poll_seconds": 0.01}} if row.mode == "batch" else {}


def sent(server):
    """Return how many requests a server was sent; of batches, those of jobs that were made."""
    jobs = [server.files[job["input_file_id"]] for job in server.batches.values()]
    return len(server.bodies) + sum(len(content.splitlines()) for content in jobs)


class Start:
    """One start of the command: its status, what it said, and what it left behind."""

    def __init__(self, path, server, capsys, *options):
        before = sent(server)
        self.status = run(path, *options)
        said = capsys.readouterr()
        out = path.parent / "out"
        self.sent = sent(server) - before
        self.summary = json.loads((out / "summary.json").read_text())
        rejects = (out / "rejects.jsonl").read_text()
        self.said = said.out + said.err + rejects
        self.records = lines(out / "corpus.jsonl")
        self.rejects = rejects.splitlines()
        self.spent = self.summary["spent"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_behaviour(row, serve, llm_of, tmp_path, capsys):
    server = serve()
    healed, answered = [], Counter()

    def answer(body, n):
        reply = ITEMS if healed else row.answer(body, n)
        answered[image_of(body)] += reply == ITEMS
        return reply

    server.answer = answer
    server.script = BatchScript(**row.script)
    path = write_job(
        tmp_path, llm_of(server, **{"concurrency": 1, **batch_of(row), **row.llm}), row.pictures
    )
    first = Start(path, server, capsys)
    assert first.status == row.status, first.said
    assert row.sees in first.said
    assert row.sent <= first.sent <= row.sent + row.more, first.said
    assert len(first.records) == row.records
    spent = first.spent
    if row.mode == "chat":  # jobs that a server refuses as a whole are none
        assert spent["requests_sent"] == first.sent
    unknown = spent["requests_of_unknown_cost"]
    assert row.unknown <= unknown <= row.unknown + bool(row.unknown) * row.more
    paid = row.records if row.paid is None else row.paid
    tokens = spent["prompt_tokens"] + spent["completion_tokens"] - paid * MONEY
    least = 800 * row.unknown + row.estimated  # 800: max_tokens
    assert tokens > least if least else tokens == 0, tokens
    assert spent.get("requests_reserved", 0) == row.reserved
    if not row.heal:
        healed.append(True)
        server.script = BatchScript()
    heal = [option.format(url=server.url) for option in row.heal]
    second = Start(path, server, capsys, *(["--options", *heal] if heal else []))
    assert (second.status, second.sent) == (0, row.again), second.said
    assert second.summary["complete"] and len(second.rejects) == row.rejected + row.dropped
    if row.rejected:
        second = Start(path, server, capsys, "--retry-rejects")
        assert (second.status, second.sent) == (0, row.rejected), second.said
    assert (len(second.records), len(second.rejects)) == (row.pictures, row.dropped)
    assert [record["image"] for record in second.records] == [
        image(number)["image"] for number in range(row.pictures)
    ]
    assert max(answered.values()) <= 1 + bool(row.unknown), "paid twice"


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.parametrize("mode", ["chat", "batch"])
@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind != "caps"])
def test_healed_the_same_command_sends_what_is_missing(
    kind, mode, data, serve, llm_of, tmp_path_factory, capsys
):
    """Whichever requests meet a fault of a class, and however many are on their way at once."""
    rows = [row for row in ROWS if (row.kind, row.mode) == (kind, mode) and row.reply is not None]
    if not rows:
        pytest.skip("faults of files and jobs meet all requests")
    row = data.draw(st.sampled_from(rows))
    images = 5
    most = images - (kind in ("request", "reply"))  # a run without a record is a failure
    chosen = data.draw(st.sets(st.integers(0, images - 1), min_size=1, max_size=most))
    if kind == "simplify":
        chosen = set(range(images))
    server, healed, answered = serve(), [], Counter()

    def answer(body, n):
        number = image_of(body)
        meets = not healed and number in chosen and (row.times is None or n <= row.times)
        reply = row.reply if meets else ITEMS
        reply = reply(body, n) if callable(reply) else reply
        answered[number] += reply == ITEMS
        return reply

    server.answer, server.script = answer, BatchScript(**row.script)
    folder = tmp_path_factory.mktemp(kind)
    settings = {**batch_of(row), "concurrency": data.draw(st.integers(1, 4)), **row.llm}
    path = write_job(folder, llm_of(server, cache_dir=str(folder / "cache"), **settings), images)
    first = Start(path, server, capsys)
    rejected = first.summary["rejected"] - first.summary["rejected_by_kind"].get("item", 0)
    missing = images - len(first.records) - rejected
    healed.append(True)
    server.script = BatchScript()
    second = Start(path, server, capsys)
    assert (second.status, second.sent) == (0, missing), second.said
    assert second.summary["complete"]
    if rejected:
        second = Start(path, server, capsys, "--retry-rejects")
        assert (second.status, second.sent) == (0, rejected), second.said
    assert len(second.records) == images
    lost = second.spent["requests_of_unknown_cost"]
    assert sum(count - 1 for count in answered.values()) <= lost


def test_there_are_rows_of_every_class_in_both_modes():
    assert len(ROWS) >= 60
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_the_page_shows_the_table():
    assert PAGE.read_text(encoding="utf-8") == table(), "run python tests/helpers/behaviours.py"
    assert f"each of {len(ROWS)} behaviours" in (PAGE.parent / "README.md").read_text()
