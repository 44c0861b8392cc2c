"""A record is shown as the critic sees it; nothing it says becomes markup."""

import base64
import io

import pytest
from PIL import Image

from lavis.common.errors import ConfigError, RecordError
from lavis.ui import markup
from lavis.ui.browse.address import Address
from lavis.ui.browse.service import Score
from lavis.ui.shown import RecordViewer, open_corpus, pieces


def test_text_and_image_carry_the_same_numbers_and_colours(world):
    viewer = RecordViewer(world.open([world.record()]))
    shown = viewer.show(0)
    assert [(p.title, p.pieces) for p in shown.parts] == [
        ("Question", ("What", "is", 0, "?")),
        ("Answer", ("Near", 1, "number0.")),
        ("Rationale", ("I", "see", 0, 1, ".")),
    ]
    assert [(r.number, r.color, r.name) for r in shown.regions] == [
        (0, "#05ff37", "o3"),
        (1, "#99ccff", "o1"),
    ]
    assert shown.size == (40, 30)
    assert shown.regions[0].box == pytest.approx((7.5, 10, 25, 80 / 3))  # 3, 3, 13, 11 of 40 x 30
    head, data = shown.image.split(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (40, 30)
    assert image.getpixel((13, 11)) == (5, 255, 55)  # the outline of region 3, which is number 0
    assert image.getpixel((1, 1)) == (153, 204, 255)


def test_unknown_ids_vanish():
    assert pieces(["a", [7, 2], 3.5], {2: 0}) == ("a", 0, "3.5")


def test_a_large_image_is_made_smaller(world):
    noise = Image.effect_noise((1200, 800), 90).convert("RGB")
    noise.save(world.root / "a.png")
    shown = RecordViewer(world.open([world.record()]), max_side=600).show(0)
    head, data = shown.image.split(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (head, image.size) == ("data:image/jpeg;base64", (600, 400))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": "../corpus.jsonl"}, "path leaves the image root"),
        ({"image": "/etc/passwd"}, "path leaves the image root"),
        ({"image": "missing.png"}, "missing image"),
        ({"image": "text.png"}, "broken image"),
        ({"image": "link.png"}, "is a link out of it"),
    ],
)
def test_a_bad_image_is_told_and_the_text_shown(world, change, problem):
    (world.root / "text.png").write_text("secret")
    (world.folder / "outside.png").write_bytes((world.root / "a.png").read_bytes())
    (world.root / "link.png").symlink_to(world.folder / "outside.png")
    shown = RecordViewer(world.open([world.record(**change)])).show(0)
    assert shown.image is None and problem in shown.problem
    assert shown.parts[0].title == "Question"


def test_a_bad_record_raises(world):
    viewer = RecordViewer(world.open(["{torn", world.record(references=[])]))
    for index, reason in enumerate(["malformed line", "unknown region id"]):
        with pytest.raises(RecordError, match=reason):
            viewer.show(index)


def test_other_kinds_of_text_are_shown(world):
    records = [
        world.record(question=..., answer=..., rationale=..., full_text_input=["all", [3]]),
        world.record(question=..., text_input=["in"], text_output=["out"]),
        world.record(rationale=...),
    ]
    viewer = RecordViewer(world.open(records))
    titles = [[p.title for p in viewer.show(i).parts] for i in range(3)]
    assert titles == [["Text"], ["Input", "Output"], ["Question", "Answer"]]


def test_nothing_in_a_record_becomes_markup(world):
    nasty = "<img src=x onerror=alert(1)>\"'&amp; ${alert(2)} {{value}} @children"
    references = world.record()["references"]
    references[2] = {**references[2], "obj_guess": nasty}
    record = world.record(
        index=nasty, source=nasty, question=[nasty, [3]], references=references, image=nasty
    )
    shown = RecordViewer(world.open([record])).show(0)
    records = [(shown, 0, Score(0.5, None)), (nasty, 1, Score(None, None))]
    html = markup.render("cards", records=records, address=Address(), compared=False)
    assert "<img" not in html and html.count("&lt;img src=x") == 7
    for mark in ("${", "{{", "@children", "\"'&amp; "):
        assert mark not in html
    assert "0.500" in html


def test_what_is_missing_is_named(world):
    with pytest.raises(ConfigError, match="--image-root: missing"):
        open_corpus(["x.jsonl"], "")
    with pytest.raises(ConfigError, match=r"no such file or folder: .*x\.jsonl"):
        open_corpus([str(world.folder / "x.jsonl")], str(world.root))
    with pytest.raises(ConfigError, match="no such image folder"):
        open_corpus([world.write([world.record()])], str(world.folder / "none"))
