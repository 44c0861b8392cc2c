"""The running pages: by HTTP, so machines without a browser run them too, and in Chromium."""

import json
import re
import urllib.error
import urllib.request

import pytest

from lavis.ui.judgements import JudgementStore

NASTY = "<img src=x onerror=alert(1)><script>alert(2)</script> ${alert(3)} {{value}} @children"


def client_of(server):
    from gradio_client import Client

    return Client(server.url, verbose=False)


def label(serve, world, *flags, count=4):
    corpus = world.write([world.record(i) for i in range(count)])
    out = world.folder / "labels"
    fixed = ["--image-root", world.root, "--out", out, "--annotators", "ann,bo", "--order", "file"]
    return serve("label_qar.py", corpus, *fixed, *flags), out


def judged(out):
    return {
        name: {j.instance: (j.verdict, j.qa_score, j.r_score) for j in said.values()}
        for name, said in JudgementStore(out / "judgements", ["ann", "bo"]).judged().items()
    }


def progress_of(values):
    return re.search(r'data-done="(\d+)" data-total="(\d+)"', values[1]).groups()


def test_two_people_label_over_http_and_nothing_is_lost_when_it_is_killed(serve, world):
    server, out = label(serve, world)
    ann, bo = client_of(server), client_of(server)
    values = ann.predict("ann", api_name="/start")
    assert progress_of(values) == ("0", "4") and "number0." in values[3]
    assert "data:image/png;base64," in values[2]
    bo.predict("bo", api_name="/start")
    values = ann.predict("ann", "accept", 1.0, 0.5, api_name="/judge")
    assert progress_of(values) == ("1", "4") and "number1." in values[3]
    values = bo.predict("bo", "reject", 0.0, 0.0, api_name="/judge")
    assert progress_of(values) == ("1", "4")
    values = ann.predict("ann", "accept", None, None, api_name="/judge")
    assert "Not saved yet: rate question and answer." in values[3]
    server.kill()
    expected = {"ann": {"test-0": ("accept", 1.0, 0.5)}, "bo": {"test-0": ("reject", 0.0, 0.0)}}
    assert judged(out) == expected
    again, _ = label(serve, world)
    values = client_of(again).predict("ann", api_name="/start")
    assert progress_of(values) == ("1", "4") and "number1." in values[3]


def status_of(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, ""


def browse(serve, world, records, *flags):
    corpus = world.write(records)
    cache, out = world.folder / "cache", world.folder / "out"
    fixed = ["--image-root", world.root, "--cache-dir", cache, "--out", out, "--page-size", 4]
    return serve("browse.py", corpus, *fixed, *flags)


def test_the_browser_answers_over_http(serve, world):
    records = [world.record(i, prediction=i / 10, region=[3, 1][: i % 3]) for i in range(10)]
    records.append("{torn")
    server = browse(serve, world, records)
    client = client_of(server)
    nothing = ["", [], "", "", "", "", "file"]
    number, line, cards = client.predict(*nothing, api_name="/find")
    assert number == 1 and cards.count("<article") == 4
    assert "10 of 11 records, page 1 of 3" in line and "1 bad records left out" in line
    number, line, cards = client.predict(3, *nothing, api_name="/page")
    assert number == 3 and cards.count("<article") == 2
    asked = ["number*", [], "0.25", "", "1", "2", "highest"]
    _, line, cards = client.predict(*asked, api_name="/find")
    assert "4 of 11 records" in line and cards.index("number8.") < cards.index("number7.")
    saved = client.predict(*asked, api_name="/export")
    path = next((world.folder / "out").iterdir())
    assert "4 records written" in saved and str(path) in saved
    lines = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [f"test-{i}" for i in (8, 7, 5, 4)]
    _, line, _ = client.predict("", [], "high", "", "", "", "file", api_name="/find")
    assert "score: &#39;high&#39; is not a number" in line
    # files of this machine, other names for it, and outside resources
    for path in ("/etc/passwd", str(world.root / "a.png"), str(world.folder / "corpus.jsonl")):
        assert status_of(f"{server.url}/gradio_api/file={path}")[0] in (403, 404)
    assert status_of(server.url, Host="evil.example")[0] == 400
    status, page = status_of(server.url)
    assert status == 200 and "gradio_config" in page and "fonts.googleapis" not in page


@pytest.fixture
def shown(browser):
    """`shown(url)` opens a page and waits for its first record."""

    def open_page(url):
        browser.goto(url)
        browser.wait_for_selector(".lv-picture img, .lv-problem")
        return browser

    return open_page


def test_labelling_by_keys_in_a_browser(serve, world, shown):
    server, out = label(serve, world, count=3)
    page = shown(f"{server.url}/?annotator=bo")
    assert page.input_value("#annotator input") == "bo"
    assert page.inner_text(".lv-parts dd >> nth=0") == "What is 0 ?"
    color = page.eval_on_selector(".lv-chip", "e => getComputedStyle(e).backgroundColor")
    assert color == "rgb(5, 255, 55)"
    width = page.eval_on_selector(".lv-picture img", "e => e.naturalWidth")
    assert width == 40
    for key in "a3w":
        page.keyboard.press(key)
    page.wait_for_selector("#r-score label.selected")
    page.keyboard.press("Enter")
    page.wait_for_selector(".lv-progress[data-done='1']")
    assert judged(out) == {"ann": {}, "bo": {"test-0": ("accept", 1.0, 0.5)}}
    assert page.locator("label.selected").count() == 0  # the next record starts empty
    page.keyboard.press("ArrowRight")  # skip
    page.wait_for_selector("text=1 skipped")
    page.click("#verdict label:has-text('reject')")
    page.click("#qa-score label:has-text('1 wrong')")
    page.click("#save")
    page.wait_for_selector(".lv-warning:has-text('rate the rationale')")
    assert page.locator("label.selected").count() == 2  # what was chosen stays
    page.keyboard.press("q")
    page.wait_for_selector("#r-score label.selected")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=All done, bo.")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("text=You said reject before")
    assert page.locator("label.selected").count() == 3
    assert judged(out)["bo"]["test-2"] == ("reject", 0.0, 0.0)
    assert page.foreign == [] and page.dialogs == []


def test_browsing_in_a_browser(serve, world, shown):
    records = [world.record(i, prediction=i / 10) for i in range(9)]
    records[0] = world.record(0, question=[NASTY], index=NASTY, source=NASTY, image="../x.png")
    server = browse(serve, world, records)
    page = shown(server.url)
    assert NASTY in page.inner_text(".lv-card >> nth=0")  # as text
    assert "path leaves the image root" in page.inner_text(".lv-card >> nth=0")
    assert page.locator(".lv-card").count() == 4
    page.click("#next")
    page.wait_for_selector(".lv-card:has-text('number7.')")
    page.fill("#words textarea, #words input", "number5 OR")
    page.press("#words textarea, #words input", "Enter")
    page.wait_for_selector("text=No record matches.")
    page.fill("#words textarea, #words input", "number*")
    page.fill("#score-low textarea, #score-low input", "0.65")
    page.click("#find")
    page.wait_for_selector("text=2 of 9 records")
    assert page.inner_text(".lv-score >> nth=0") == "0.700"
    page.click("#export")
    page.wait_for_selector("text=2 records written to")
    assert len(next((world.folder / "out").iterdir()).read_text().splitlines()) == 2
    assert page.foreign == [] and page.dialogs == []
