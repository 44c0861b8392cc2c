"""The labelling page in Chromium: what is seen at two sizes, fast clicks, the address, review."""

import itertools

import pytest
from PIL import Image

from lavis.processors.region import contrast
from lavis.ui.label.judgements import Judgement, JudgementStore, now

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
MANY = 32  # regions: every colour that differs by eye


def colour(text):
    """Return `#rrggbb` of a computed `rgb(r, g, b)`."""
    return "#" + "".join(f"{int(v):02x}" for v in text[4:-1].split(","))


@pytest.fixture
def portrait(world):
    """Records of a portrait with 32 regions, and of a panorama with long texts."""
    Image.linear_gradient("L").resize((500, 990)).convert("RGB").save(world.root / "tall.png")
    Image.linear_gradient("L").resize((1500, 300)).convert("RGB").save(world.root / "wide.png")
    boxes = {
        i: [(i % 4) * 120, i // 4 * 120, (i % 4) * 120 + 130, i // 4 * 120 + 130]
        for i in range(MANY)
    }
    references = [{"name": str(i), "boxes": [boxes[i]], "obj_guess": f"o{i}"} for i in range(MANY)]
    mentions = [part for i in range(MANY) for part in ("and", [i])]
    common = {"references": references, "region_all": list(range(MANY))}
    return [
        world.record(
            0,
            image="tall.png",
            region=list(range(MANY)),
            question=["Who", *mentions, "?"],
            **common,
        ),
        world.record(
            1,
            image="wide.png",
            region=[0, 1],
            question=["Why", [0]],
            answer=["word"] * 400,
            rationale=["x" * 300],
            **common,
        ),
    ]


@pytest.fixture
def label(serve, world):
    """`label(records, *flags)` -> (server, folder of the judgements)."""

    def start(records, *flags):
        out = world.folder / "labels"
        fixed = ["--image-root", world.root, "--out", out, "--order", "file"]
        return serve("label_qar.py", world.write(records), *fixed, *flags), out

    return start


def said(out, *names):
    return {
        name: {j.instance: (j.verdict, j.comment) for j in judged.values()}
        for name, judged in JudgementStore(out / "judgements", names).judgements().items()
    }


def open_page(browser, url, size="desk", scheme="light"):
    browser.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    browser.emulate_media(color_scheme=scheme)
    browser.goto(url)
    browser.wait_for_selector("#text [data-serial]")
    browser.wait_for_selector("#picture .lv-stage > *")
    return browser


def test_a_portrait_and_long_texts_fit_a_window_and_a_phone(label, portrait, browser):
    server, _ = label(portrait)
    for size, (width, height) in SIZES.items():
        for record in ("1", "2"):
            page = open_page(browser, f"{server.url}?record={record}", size)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            image = page.locator("#picture .lv-picture").bounding_box()
            assert image["height"] <= 0.65 * height and image["width"] <= width
            ratio = {"1": 500 / 990, "2": 5}[record]
            assert image["width"] / image["height"] == pytest.approx(ratio, rel=0.02)
            for button in ("save", "skip", "back"):
                box = page.locator(f"#{button}").bounding_box()
                assert box["y"] + box["height"] <= height + 1, (size, record, button)
            progress = page.locator(".lv-progress span").bounding_box()
            assert progress["x"] >= 0 and progress["x"] + progress["width"] <= width
        fold = page.locator(".lv-fold").first
        folded = fold.bounding_box()["height"]
        assert folded < 0.3 * height
        fold.locator("summary").click()
        assert fold.bounding_box()["height"] > 2 * folded


BADGES = """() => [...document.querySelectorAll('#picture .lv-badge')].map(badge => {
  const box = document.querySelector(`#picture .lv-box[data-region="${badge.dataset.region}"]`);
  const rect = e => {
    const r = e.getBoundingClientRect();
    return [r.left, r.top, r.right, r.bottom];
  };
  const style = getComputedStyle(badge);
  return {
    badge: rect(badge), box: rect(box), label: badge.getAttribute('aria-label'),
    text: badge.innerText, ink: style.color, fill: style.backgroundColor,
  };
})"""


def test_every_number_is_readable_on_its_box_and_in_the_text(label, portrait, browser):
    server, _ = label(portrait)
    for size, scheme in itertools.product(SIZES, ("light", "dark")):
        page = open_page(browser, f"{server.url}?record=1", size, scheme)
        edge = page.locator("#picture .lv-picture").bounding_box()
        badges = page.evaluate(BADGES)
        assert [b["text"] for b in badges] == [str(i) for i in range(MANY)]
        for badge in badges:
            left, top, right, bottom = badge["badge"]
            assert left >= edge["x"] - 1 and right <= edge["x"] + edge["width"] + 1
            assert top >= edge["y"] - 1 and bottom <= edge["y"] + edge["height"] + 1
            assert contrast(colour(badge["ink"]), colour(badge["fill"])) >= 4.5
            assert badge["label"] == f"region {badge['text']}: o{badge['text']}"
        near = [
            b["badge"][0] <= b["box"][2] + 1
            and b["badge"][2] >= b["box"][0] - 1
            and b["badge"][1] <= b["box"][3] + 1
            and b["badge"][3] >= b["box"][1] - 1
            for b in badges
        ]
        assert sum(near) >= MANY - len(page.query_selector_all(".lv-leads line"))
        for i, a in enumerate(badges):
            for b in badges[i + 1 :]:
                across = min(a["badge"][2], b["badge"][2]) - max(a["badge"][0], b["badge"][0])
                down = min(a["badge"][3], b["badge"][3]) - max(a["badge"][1], b["badge"][1])
                assert across <= 0.5 or down <= 0.5, (a["text"], b["text"])
        fills = {b["text"]: b["fill"] for b in badges}
        behind = colour(page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor"))
        chips = page.eval_on_selector_all(
            "#text .lv-chip",
            """es => es.map(e => [e.innerText, getComputedStyle(e).color,
            getComputedStyle(e).backgroundColor, getComputedStyle(e).boxShadow])""",
        )
        assert {c[0] for c in chips} >= set(fills)
        for text, ink, fill, ring in chips:
            assert fill == fills[text] and ring.startswith(ink)
            assert contrast(colour(ink), colour(fill)) >= 4.5
            assert max(contrast(colour(c), behind) for c in (ink, fill)) >= 3


def test_a_region_lights_up_in_text_and_image(label, world, browser):
    page = open_page(browser, label([world.record()])[0].url)
    page.hover("#text .lv-chip >> nth=0")
    lit = page.eval_on_selector_all(".lv-lit", "es => es.map(e => [e.className, e.dataset.region])")
    assert {number for _, number in lit} == {"0"}
    assert {name.split()[0] for name, _ in lit} == {"lv-chip", "lv-badge", "lv-box"}
    page.hover("#verdict")
    assert page.locator(".lv-lit").count() == 0


def test_an_image_is_enlarged_by_click_and_key(label, portrait, browser):
    page = open_page(browser, f"{label(portrait)[0].url}?record=2")
    small = page.locator("#picture .lv-picture").bounding_box()["width"]
    page.keyboard.press("z")
    large = page.locator("dialog.lv-zoom .lv-picture").bounding_box()["width"]
    assert large > 1.5 * small
    page.keyboard.press("z")  # full size
    assert page.locator("dialog.lv-zoom .lv-picture").bounding_box()["width"] >= 1500 - 1
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog.lv-zoom", state="detached")
    page.click("#picture .lv-picture")
    page.wait_for_selector("dialog.lv-zoom .lv-badge >> nth=0")
    page.keyboard.press("a")  # keys are the enlarged image's
    page.keyboard.press("Escape")
    assert page.locator("label.selected").count() == 0


def test_an_unknown_annotator_is_refused(label, world, browser):
    server, out = label([world.record(i) for i in range(3)], "--annotators", "ann,bo & <i>")
    page = browser
    page.goto(f"{server.url}?annotator=anm")
    page.wait_for_selector("text=no annotator 'anm'; there are: ann, bo & <i>")
    assert page.locator(".lv-picture").count() == 0
    page.keyboard.press("a")
    page.click("#save")
    page.click("#skip")
    page.wait_for_timeout(500)
    assert not (out / "judgements").exists()
    page.click("a:has-text('bo & <i>')")
    page.wait_for_selector(".lv-picture")
    assert page.input_value("#annotator input") == "bo & <i>"
    page.click("#skip")
    page.wait_for_selector("text=1 skipped")
    assert said(out, "ann", "bo & <i>") == {"ann": {}, "bo & <i>": {"test-0": ("skip", "")}}


def test_fast_clicks_all_count(label, world, browser):
    server, out = label([world.record(i) for i in range(12)], "--annotators", "ann")
    page = open_page(browser, server.url)
    page.evaluate("() => { for (let i = 0; i < 5; i++) document.getElementById('skip').click(); }")
    page.wait_for_selector("text=5 skipped")
    for _ in range(3):
        page.click("#skip", no_wait_after=True)
    page.wait_for_selector("text=8 skipped")
    assert set(said(out, "ann")["ann"]) == {f"test-{i}" for i in range(8)}
    page.wait_for_timeout(500)
    assert page.inner_text(".lv-progress span").endswith("record 9")


def test_typing_ahead_judges_each_record_as_it_was_typed(label, world, browser):
    server, out = label([world.record(i) for i in range(8)], "--annotators", "ann")
    page = open_page(browser, server.url)
    for number in range(6):
        for key in ("x1q" if number % 2 else "a3e") + "\n":
            page.keyboard.press("Enter" if key == "\n" else key)
    page.wait_for_selector(".lv-progress[data-done='6']")
    verdicts = {name: verdict for name, (verdict, _) in said(out, "ann")["ann"].items()}
    assert verdicts == {f"test-{i}": ("reject" if i % 2 else "accept") for i in range(6)}


def test_a_second_click_says_nothing_of_the_next_record(label, world, browser):
    server, out = label([world.record(i) for i in range(4)], "--annotators", "ann")
    page = open_page(browser, server.url)
    for key in "a3e":
        page.keyboard.press(key)
    page.wait_for_selector("#r-score label.selected")
    page.dblclick("#save")
    page.wait_for_selector(".lv-progress[data-done='1']")
    page.wait_for_selector(".lv-warning:has-text('choose accept')")
    assert set(said(out, "ann")["ann"]) == {"test-0"}


def test_a_click_on_somebody_elses_record_saves_nothing(label, world, serve):
    from gradio_client import Client

    server, out = label([world.record(i) for i in range(3)], "--annotators", "ann,bo")
    client = Client(server.url, verbose=False)
    token = client.predict("ann", False, api_name="/start")[9]
    _key, name = token.split(" ")
    assert name == "ann"
    values = client.predict("bo", "accept", 1.0, 1.0, "", False, token, api_name="/judge")
    assert "the record shown was ann&#39;s" in values[3]
    # a late click: the page shows the first record still, the session has gone on
    client.predict("ann", "accept", 1.0, 1.0, "", False, token, api_name="/judge")
    client.predict("ann", "reject", 0.0, 0.0, "late", False, token, api_name="/judge")
    assert said(out, "ann", "bo") == {"ann": {"test-0": ("reject", "late")}, "bo": {}}


def test_the_address_says_who_and_what(label, world, browser):
    server, _ = label([world.record(i) for i in range(5)], "--annotators", "ann,bo")
    page = open_page(browser, f"{server.url}?annotator=bo")
    for number in (1, 2):
        page.click("#skip")
        page.wait_for_selector(f"#text:has-text('number{number}.')")
    assert "annotator=bo" in page.url and "record=" in page.url
    there = page.url
    page.go_back()
    page.wait_for_selector("#text:has-text('number1.')")
    assert page.url != there
    page.go_back()
    page.wait_for_selector("#text:has-text('number0.')")
    page.go_forward()
    page.wait_for_selector("#text:has-text('number1.')")
    page.reload()
    page.wait_for_selector("#text:has-text('number1.')")
    assert page.input_value("#annotator input") == "bo"
    page.goto(there)  # as a colleague opens it
    page.wait_for_selector("#text:has-text('number2.')")


def test_comments_unsure_and_going_to_a_record(label, world, browser):
    server, out = label([world.record(i) for i in range(6)], "--annotators", "ann")
    page = open_page(browser, server.url)
    page.keyboard.press("g")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    page.wait_for_selector("#text:has-text('number3.')")
    page.fill("#target input, #target textarea", "test-1")
    page.click("#go")
    page.wait_for_selector("#text:has-text('number1.')")
    page.keyboard.press("u")
    page.keyboard.press("c")
    page.keyboard.type("a box is missing <b>")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=1 unsure")
    assert said(out, "ann")["ann"] == {"test-1": ("unsure", "a box is missing <b>")}
    page.fill("#target input, #target textarea", "nothing")
    page.click("#go")
    page.wait_for_selector("text=No record 'nothing' in the queue of ann.")
    page.fill("#target input, #target textarea", "2")
    page.click("#go")
    page.wait_for_selector("text=You said unsure before")
    assert page.input_value("#comment textarea, #comment input") == "a box is missing <b>"
    assert page.dialogs == []


def judge(out, name, verdicts, keys):
    store = JudgementStore(out / "judgements", ["ann", "bo", "cy"])
    for instance, verdict in verdicts.items():
        score = float(verdict == "accept")
        store.file(name).append(
            Judgement(
                key=keys[instance],
                annotator=name,
                verdict=verdict,
                instance=instance,
                time=now(),
                qa_score=score,
                r_score=score,
                comment=f"{name} on {instance}",
            )
        )


def test_differences_are_reviewed_and_agreement_is_live(label, world, browser):
    from label_items import read_items

    records = [world.record(i) for i in range(4)]
    keys = {item.instance: item.key for item in read_items(world.open(records)).all()}
    server, out = label(records, "--annotators", "ann,bo,cy")
    accept, reject = "accept", "reject"
    judge(out, "ann", {"test-0": accept, "test-1": accept, "test-2": reject}, keys)
    judge(out, "bo", {"test-0": accept, "test-1": reject, "test-2": accept}, keys)
    page = open_page(browser, f"{server.url}?annotator=bo&mode=review")
    page.wait_for_selector("#text:has-text('number1.')")
    rows = page.locator(".lv-said tr").all_inner_texts()
    assert [row.split() for row in rows[1:]] == [
        ["ann", "accept", "1.0", "1.0", *"ann on test-1".split()],
        ["bo", "reject", "0.0", "0.0", *"bo on test-1".split()],
    ]
    page.click("#agreement-fold button")
    page.wait_for_selector("#agreement:has-text('2 on which verdicts differ')")
    row = page.locator("#agreement tr:has-text('ann and bo') td").all_inner_texts()
    assert row[:3] == ["3", "33 %", "-0.50"]  # 1 of 3 alike, 5/9 by chance: (1/3 - 5/9) / (4/9)
    for key in "a3e":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("#text:has-text('number2.')")
    page.wait_for_selector("#agreement:has-text('1 on which verdicts differ')")
    assert said(out, "bo")["bo"]["test-1"][0] == "accept"
    page.keyboard.press("ArrowRight")  # nothing is skipped here
    page.wait_for_selector("text=No other record on which annotators differ")
    assert said(out, "bo")["bo"]["test-2"][0] == "accept"


def test_what_a_person_wrote_stays_text(label, world, browser):
    nasty = "</script><img src=x onerror=alert(1)>{{7*7}}"
    records = [world.record(0, question=[nasty], index=nasty)]
    server, _ = label(records, "--annotators", "ann")
    page = open_page(browser, f"{server.url}?annotator=ann&record=<script>alert(2)</script>")
    page.wait_for_selector(".lv-warning:has-text('No record')")
    assert nasty in page.inner_text("#text")
    page.goto(f"{server.url}?annotator=<img src=x onerror=alert(3)>")
    page.wait_for_selector("text=no annotator '<img src=x onerror=alert(3)>'")
    page.goto(f"{server.url}?annotator=ann&mode=<b>")
    page.wait_for_selector("text=mode '<b>'; use label or review")
    assert page.dialogs == [] and page.foreign == []
