"""The running pages: by HTTP, so machines without a browser run them too, and in Chromium."""

import re

import pytest

from lavis.ui.label.judgements import JudgementStore


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
        for name, said in JudgementStore(out / "judgements", ["ann", "bo"]).labels().items()
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
