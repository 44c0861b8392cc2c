"""Corpus, rejects, summary and page of a generation."""

import json

import pytest
from generation_run import GOOD, OTHER, items, lines, number_of, run
from page_checks import check_report
from PIL import Image


@pytest.fixture
def flaky_job(job, settings):
    """Return a function that writes a run whose requests are sent one by one, and at most twice."""
    return lambda server: job(server, llm=settings(server, max_attempts=2, concurrency=1))


def test_figures_by_prompt_style(serve, flaky_job, tmp_path):
    server = serve(lambda body, n: items(GOOD, ("Why is [7] here?", *GOOD[1:])))
    assert run(flaky_job(server)) == 0
    assert json.loads((tmp_path / "out/summary.json").read_text())["by_source"] == {
        "s_v4": {
            "requests": 4,
            "records": 4,
            "rejected": 4,
            "prompt_tokens": 40,
            "completion_tokens": 20,
            "tokens_per_record": 15.0,
        }
    }


def test_the_page_shows_images_with_what_was_made_of_them(serve, flaky_job, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in (0, 1):  # the others' are not there
        Image.new("RGB", (100, 100), (40, 90, 160)).save(images / f"a_{number:03d}.png")
    replies = [items(GOOD), items(GOOD, GOOD), "<b>no JSON</b>", (500, {})]
    server = serve(lambda body, n: replies[number_of(body)])
    options = [f"run.image_root={images}", "run.report_examples=6"]
    assert run(flaky_job(server), "--options", *options) == 1
    page = (tmp_path / "out/report.html").read_text()
    assert "Not complete: 1 of 4 requests left." in page
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert page.count('alt="a_000.png; regions: 0 dog, 1 man"') == 1
    assert page.count("no image: missing image: a_002.png") == 1
    assert page.count("no image: missing image: a_003.png") == 1
    assert page.count('class="lv-badge" data-region="1"') == 2  # one on each image
    assert page.count('<span class="badge kept">kept</span>') == 2
    assert page.count('<span class="badge dropped">rejected</span>') == 2
    assert page.count('<span class="badge left">left</span>') == 1
    assert "&lt;b&gt;no JSON&lt;/b&gt;" in page and "<b>no JSON" not in page
    for text in ("malformed reply", "duplicate", "HTTP 500", "tokens of prompts", "requests sent"):
        assert text in page
    assert "http" not in page  # it needs no other file


def test_a_page_without_a_folder_of_images_has_their_texts(serve, flaky_job, tmp_path):
    server = serve(lambda body, n: items(GOOD))
    assert run(flaky_job(server)) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "Set run.image_root to show the images." in page and "data:image" not in page
    assert page.count('class="lv-chip" data-region="0"') >= 4
    assert run(flaky_job(server), "--options", "run.report_examples=0") == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "Examples" not in page and "records" in page


def test_the_page_fits_and_can_be_read(serve, flaky_job, browser, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (100, 900), (40, 90, 160)).save(images / "a_000.png")
    long = ("What is [0] " + "doing " * 40 + "?", "x" * 200, "because " * 60)
    replies = [items(GOOD, long), items(GOOD, GOOD), "<b>no JSON</b>" + "y" * 300, (500, {})]
    server = serve(lambda body, n: replies[number_of(body)])
    run(flaky_job(server), "--options", f"run.image_root={images}", "run.report_examples=6")
    check_report(browser, tmp_path / "out/report.html")


def test_no_two_records_share_an_index_whatever_stands_between_the_items(serve, job, tmp_path):
    """Items of no use before the good ones, and more of them than were asked for."""
    third = ("Where is [0]?", "[0] is beside [1].", "[0] stands next to [1] here.")
    whole = json.loads(items(GOOD, OTHER, third))["items"]
    reply = json.dumps({"items": [{"question": "What?"}, 7, *whole]})
    assert run(job(serve(lambda body, n: reply), images=3)) == 0
    found = [line["index"] for line in lines(tmp_path / "out" / "corpus.jsonl")]
    assert found == [f"s_v4-{number}" for number in range(6)]
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    assert [line["position"] for line in rejects] == [0, 1, 4] * 3
