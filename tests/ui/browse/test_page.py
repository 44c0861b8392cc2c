"""The running browser page: by HTTP, so machines without a browser run it too, and in Chromium."""

import itertools
import json
import urllib.error
import urllib.parse
import urllib.request

import pytest
from page_checks import SIZES, faint_texts, too_wide, untold_images
from PIL import Image

NASTY = "<img src=x onerror=alert(1)><script>alert(2)</script> ${alert(3)} {{value}} @children"
WORDS = "#words textarea, #words input"


def client_of(server):
    from gradio_client import Client

    return Client(server.url, verbose=False)


def fetch(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def browse(serve, world, records, *flags):
    corpus = world.write(records)
    fixed = ["--image-root", world.root, "--cache-dir", world.folder / "cache", "--page-size", 4]
    return serve("browse.py", corpus, *fixed, *flags)


def scored(world, count=9):
    return [world.record(i, prediction=i / 10, source=f"s{i % 2}") for i in range(count)]


def two_runs(world, count=9):
    """Flags of two files of scores: the second one's differ by -0.4, -0.3, ..."""
    flags = []
    for flag, score in (("--scores", lambda i: 0.5), ("--compare", lambda i: 0.1 + i / 10)):
        path = world.folder / flag[2:] / "result" / "test.jsonl"
        path.parent.mkdir(parents=True)
        rows = [{"index": i, "instance": f"test-{i}", "score": score(i)} for i in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags += [flag, path]
    return flags


def test_the_browser_answers_over_http(serve, world):
    records = [world.record(i, prediction=i / 10, region=[3, 1][: i % 3]) for i in range(10)]
    records.append("{torn")
    out = world.folder / "out"
    server = browse(serve, world, records, "--out", out)
    client = client_of(server)
    number, line, _, cards, detail, address = client.predict("", api_name="/go")[-6:]
    assert (number, detail, address) == (1, "", "?") and cards.count("<article") == 4
    assert "10 of 11 records, page 1 of 3" in line and "1 bad records left out" in line
    number, line, _, cards, _, address = client.predict("?p=3", api_name="/go")[-6:]
    assert (number, address) == (3, "?p=3") and cards.count("<article") == 2
    asked = ["number*", [], "score-desc", "0.25", "", "1", "2"]
    number, line, _, cards, _, address = client.predict(*asked, api_name="/find")
    assert "4 of 11 records" in line and cards.index("number8.") < cards.index("number7.")
    assert (
        address == "?words=number%2A&score_from=0.25&regions_from=1&regions_to=2&order=score-desc"
    )
    again = client.predict(address, api_name="/go")
    assert list(again[:7]) == asked and again[-3] == cards
    saved = client.predict(address, api_name="/export")
    path = next(out.iterdir())
    assert "4 records written" in saved and str(path) in saved
    status, body, headers = fetch(f"{server.url}/download{address}")
    assert status == 200 and body == path.read_text()
    assert headers["Content-Disposition"] == f'attachment; filename="{path.name}"'
    assert [json.loads(line)["index"] for line in body.splitlines()] == [
        f"test-{i}" for i in (8, 7, 5, 4)
    ]
    line = client.predict("?score_from=high", api_name="/go")[-5]
    assert "score from: &#39;high&#39; is not a number" in line
    assert fetch(f"{server.url}/download?score_from=high")[:2] == (
        400,
        "score from: 'high' is not a number\n",
    )
    # files of this machine, other names for it, and outside resources
    for place in ("/etc/passwd", str(world.root / "a.png"), str(world.folder / "corpus.jsonl")):
        assert fetch(f"{server.url}/gradio_api/file={place}")[0] in (403, 404)
    for place in ("", "/download"):
        assert fetch(f"{server.url}{place}", Host="evil.example")[0] == 400
    status, page, _ = fetch(server.url)
    assert status == 200 and "gradio_config" in page and "fonts.googleapis" not in page


def test_a_record_is_shown_with_all_its_fields(serve, world):
    server = browse(serve, world, [*scored(world, 3), "{torn"])
    detail = client_of(server).predict("?open=1&order=score-desc", api_name="/detail")
    for text in ("test-1", "2 of 3", "corpus.jsonl, line 2", "prediction", "references", "0.100"):
        assert text in detail, text
    assert "open=2" in detail and "open=0" in detail  # its neighbours
    outside = client_of(server).predict("?open=1&words=number2", api_name="/detail")
    assert "not in this selection" in outside and "number1." in outside
    assert "no such row" in client_of(server).predict("?open=99", api_name="/detail")
    assert "malformed line" in client_of(server).predict("?open=3", api_name="/detail")
    assert client_of(server).predict("?", api_name="/detail") == ""


def test_a_large_download_is_the_whole_corpus_and_needs_no_file(serve, world):
    server = browse(serve, world, scored(world, 2500))
    _, body, _ = fetch(f"{server.url}/download")
    assert body == (world.folder / "corpus.jsonl").read_text()
    corpus = [name for name in world.folder.iterdir() if name.is_file()]
    assert [path.name for path in corpus] == ["corpus.jsonl"]


@pytest.fixture
def opened(browser):
    """`opened(url)` opens a page and waits for its first records."""

    def open_page(url, size="desk", scheme="light"):
        width, height = SIZES[size]
        browser.set_viewport_size({"width": width, "height": height})
        browser.emulate_media(color_scheme=scheme)
        browser.goto(url)
        browser.wait_for_selector(".lv-card, .lv-done, .lv-warning")
        return browser

    return open_page


def query_of(page):
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page.url).query))


def test_texts_of_a_corpus_stay_texts(serve, world, opened):
    records = scored(world)
    records[0] = world.record(0, question=[NASTY], index=NASTY, source=NASTY, image="../x.png")
    records[1] = world.record(1, **{NASTY: NASTY})
    page = opened(browse(serve, world, records).url)
    assert NASTY in page.inner_text(".lv-card >> nth=0")
    assert "path leaves the image root" in page.inner_text(".lv-card >> nth=0")
    assert NASTY in page.inner_text(".lv-sources")
    page.click(".lv-card >> nth=1 >> .lv-open")
    page.wait_for_selector("dialog.lv-detail[open]")
    assert NASTY in page.inner_text("dialog.lv-detail")
    assert page.foreign == [] and page.dialogs == []


def test_the_address_holds_what_is_shown_and_the_browser_goes_back(serve, world, opened):
    server = browse(serve, world, scored(world))
    page = opened(f"{server.url}/?__theme=light")
    page.fill(WORDS, "number5 OR")
    page.press(WORDS, "Enter")
    page.wait_for_selector("text=No record matches.")
    page.fill(WORDS, "number*")
    page.fill("#score-from input, #score-from textarea", "0.25")
    page.click("#find")
    page.wait_for_selector("text=6 of 9 records")
    page.wait_for_function("location.search.includes('score_from=0.25')")
    assert query_of(page) == {"words": "number*", "score_from": "0.25", "__theme": "light"}
    page.click("#next")
    page.wait_for_selector("text=page 2 of 2")
    assert query_of(page)["p"] == "2"
    shared = page.url
    page.click(".lv-open >> nth=0")
    page.wait_for_selector("dialog.lv-detail[open] >> text=number7.")
    assert query_of(page)["open"] == "7"
    page.go_back()
    page.wait_for_selector("dialog.lv-detail", state="detached")
    assert page.url == shared
    page.go_back()
    page.wait_for_selector("text=page 1 of 2")
    page.go_back()
    page.wait_for_selector("text=No record matches.")
    assert page.input_value(WORDS) == "number5 OR"
    assert page.input_value("#score-from input, #score-from textarea") == ""
    page.go_forward()
    page.wait_for_selector("text=6 of 9 records")
    assert page.input_value(WORDS) == "number*"
    other = opened(shared)  # as somebody else opens it
    other.wait_for_selector("text=page 2 of 2")
    assert other.input_value(WORDS) == "number*"
    assert other.locator(".lv-card").count() == 2


def test_fast_clicks_on_next_all_count(serve, world, opened):
    page = opened(browse(serve, world, scored(world, 40)).url)
    page.evaluate("() => { for (let i = 0; i < 5; i++) document.getElementById('next').click(); }")
    page.wait_for_selector("text=page 6 of 10")
    page.evaluate(
        "() => { for (let i = 0; i < 9; i++) document.getElementById('previous').click(); }"
    )
    page.wait_for_selector("text=page 1 of 10")


def test_a_record_in_detail(serve, world, opened):
    page = opened(f"{browse(serve, world, scored(world)).url}/?order=score-desc&open=5")
    page.wait_for_selector("dialog.lv-detail[open] >> text=number5.")
    assert page.evaluate("document.querySelector('dialog.lv-detail').matches(':modal')")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("dialog.lv-detail >> text=number4.")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("dialog.lv-detail >> text=number5.")
    # a mention lights up its box, and the box its mention
    page.hover("dialog .lv-parts .lv-chip >> nth=0")
    number = page.get_attribute("dialog .lv-parts .lv-chip >> nth=0", "data-region")
    assert page.locator(f"dialog .lv-box.lv-lit[data-region='{number}']").count() == 1
    page.hover(f"dialog .lv-badge[data-region='{1 - int(number)}']")
    assert page.locator(f"dialog .lv-parts .lv-chip.lv-lit[data-region='{number}']").count() == 0
    # the image is enlarged, and Escape closes one thing at a time
    page.click("dialog.lv-detail .lv-picture img", position={"x": 5, "y": 5})
    page.wait_for_selector("dialog.lv-zoom[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.lv-zoom", state="detached")
    assert page.locator("dialog.lv-detail[open]").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.lv-detail", state="detached")
    assert "open" not in query_of(page)


def test_scores_are_brushed_sources_counted_and_the_selection_downloaded(
    serve, world, opened, tmp_path
):
    page = opened(browse(serve, world, scored(world)).url)
    box = page.locator("#histogram").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.51 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.81 * box["width"], y, steps=5)
    page.mouse.up()
    page.wait_for_selector("text=4 of 9 records")  # 0.5, 0.6, 0.7, 0.8
    assert query_of(page) == {"score_from": "0.5", "score_to": "0.825"}
    assert page.input_value("#score-to input, #score-to textarea") == "0.825"
    assert page.inner_text(".lv-sources").split() == ["s0", "2", "s1", "2"]
    page.click(".lv-sources a:has-text('s1')")
    page.wait_for_selector("text=2 of 9 records")
    assert page.inner_text(".lv-sources").split() == ["s0", "2", "s1", "2"]
    with page.expect_download() as started:
        page.click("#download")
    target = tmp_path / "selection.jsonl"
    started.value.save_as(target)
    assert started.value.suggested_filename.startswith("corpus-")
    found = [json.loads(line)["index"] for line in target.read_text().splitlines()]
    assert found == ["test-5", "test-7"]
    page.click(".lv-facet a:has-text('all scores')")
    page.wait_for_selector("text=4 of 9 records")
    assert page.locator("#export").is_hidden()  # no folder was named


def test_any_column_sorts_and_two_runs_are_set_side_by_side(serve, world, opened):
    page = opened(browse(serve, world, scored(world), *two_runs(world)).url)
    assert page.inner_text(".lv-card >> nth=0 >> .lv-score") == "0.500 → 0.100 -0.400"
    page.click("#order input")
    page.click("[role=option]:has-text('difference, highest')")
    page.wait_for_selector(".lv-card >> nth=0 >> text=number8.")
    assert query_of(page) == {"order": "difference-desc"}
    page.click("a:has-text('lower by most')")
    page.wait_for_selector(".lv-card >> nth=0 >> text=number0.")
    assert page.input_value("#order input") == "difference, lowest"
    text = page.inner_text(".lv-two")
    assert "9 with both scores" in text and "4 higher, 4 lower" in text
    page.fill("#difference-from input, #difference-from textarea", "0.15")
    page.click("#find")
    page.wait_for_selector("text=3 of 9 records")
    page.click(".lv-open >> nth=0")
    page.wait_for_selector("dialog.lv-detail[open]")
    facts = page.inner_text("dialog.lv-detail .lv-facts >> nth=0").split()
    assert facts[:6] == ["scores", "0.500", "compare", "0.700", "difference", "+0.200"]


def test_the_page_fits_and_can_be_read(serve, world, opened):
    Image.new("RGB", (40, 900), (90, 120, 90)).save(world.root / "tall.png")
    tall = world.record(10, image="tall.png", answer=["x" * 300], source="a" * 120)
    records = [*scored(world), world.record(9, image="gone.png"), tall, "{torn"]
    server = browse(serve, world, records, *two_runs(world))
    for size, scheme in itertools.product(SIZES, ("light", "dark")):
        page = opened(server.url, size, scheme)
        assert ("dark" in (page.get_attribute("body", "class") or "")) == (scheme == "dark")
        fits_and_reads(page, ".lv")
        page.click(".lv-open >> nth=0")
        page.wait_for_selector("dialog.lv-detail[open]")
        fits_and_reads(page, "dialog.lv-detail")
        page.goto(f"{server.url}/?p=3&open=10")
        page.wait_for_selector("dialog.lv-detail[open]")
        assert page.locator(".lv-problem").count()
        fits_and_reads(page, ".lv")


def fits_and_reads(page, part):
    assert too_wide(page) == [] and untold_images(page) == [] and faint_texts(page, part) == []


def test_a_phone_shows_records_first_and_names_in_any_script(serve, world, opened):
    """Filters are folded; right-to-left names stay beside their number, long ones in the window."""
    names = {1: "رجل", 2: "دراجة", 3: "N" * 400}
    references = [
        {"name": str(i), "boxes": [[i, i, i + 10, i + 8]], "obj_guess": names[i]} for i in names
    ]
    records = [world.record(0, region=[1, 2, 3], references=references, prediction=0.5)]
    records[0]["question"] = ["لماذا", "يقف", [1], "؟"]
    server = browse(serve, world, records)
    page = opened(server.url, "phone")
    assert page.locator("#cards").bounding_box()["y"] < 450
    assert not page.locator("#score-from").is_visible()
    names_at = page.locator(".lv-card .lv-name").evaluate_all(
        """all => all.map(one => [one.querySelector('.lv-chip').innerText,
          one.querySelector('bdi').innerText,
          one.querySelector('.lv-chip').getBoundingClientRect().right
            <= one.querySelector('bdi').getBoundingClientRect().left + 1 || 'before'])"""
    )
    assert names_at[:2] == [["0", "رجل", True], ["1", "دراجة", True]]
    ends = page.locator(".lv-card .lv-name").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert max(ends) <= 390
    question = page.locator(".lv-card .lv-parts dd").first
    assert question.evaluate("one => getComputedStyle(one).direction") == "rtl"
    page.focus("#filters summary")
    page.keyboard.press("Enter")
    assert page.locator("#score-from").is_visible() and page.locator("#source").is_visible()
    page.goto(f"{server.url}/?score_from=0.4&open=0")  # what chooses records is seen
    detail = page.locator("dialog.lv-detail[open]")
    detail.wait_for()
    assert detail.evaluate("one => one.scrollWidth <= one.clientWidth")
    assert page.locator("#filters details").evaluate("one => one.open")
