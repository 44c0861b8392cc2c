"""Shared macros of pages: chips of drawn regions, badges on images, everything escaped."""

import re
from pathlib import Path

from lavis.common.pages import page_environment, regions_script, regions_style, text_pieces
from lavis.datasets.lck.marks import region_marks
from lavis.processors.region import DrawnRegion, css_color, ink_on

ROOT = Path(__file__).resolve().parents[2]
MARKS = region_marks(
    [DrawnRegion(n, (10 * n, 0, 10 * n + 9, 20)) for n in range(3)],
    (40, 20),
    palette="distinct",
    names=["dog", "<b>", ""],
)


def macro(name):
    template = page_environment(Path("none")).get_template("regions.html.jinja")
    return getattr(template.module, name)


def test_numbers_of_drawn_regions_become_chips_of_their_colour():
    html = str(macro("text")("a [0] & [2], [7]", MARKS))
    found = re.findall(
        r'data-region="(\d)".*?--fill:(#\w{6});--on-fill:(#\w{6})">(\d)</span>', html
    )
    assert found == [
        (str(n), css_color(n, "distinct"), ink_on(css_color(n, "distinct")), str(n)) for n in (0, 2)
    ]
    assert "a <span" in html and " &amp; <span" in html and html.count("lv-chip") == 2
    assert html.endswith(', <span class="lv-unmarked">[7]</span>')  # no such region is drawn


def test_an_image_has_a_badge_for_each_region_and_says_them_aloud():
    html = str(macro("picture")("data:x", (40, 20), MARKS, "row 3"))
    assert 'alt="row 3; regions: 0 dog, 1 &lt;b&gt;, 2"' in html
    assert re.findall(r'lv-badge" data-region="(\d)"', html) == ["0", "1", "2"]
    assert 'aria-label="region 1: &lt;b&gt;"' in html and "<b>" not in html
    assert "--ratio:2.00000" in html
    assert "left:25.000%;top:0.000%;width:22.500%;height:100.000%" in html


def test_names_stand_beside_their_number_in_any_direction_and_many_are_folded():
    html = str(macro("names")(MARKS))
    pairs = re.findall(
        r'class="lv-name" title="([^"]*)"><span .*?>(\d)</span> <bdi>(.*?)</bdi>', html
    )
    assert pairs == [
        ("region 0: dog", "0", "dog"),
        ("region 1: &lt;b&gt;", "1", "&lt;b&gt;"),
        ("region 2", "2", "region"),
    ]
    assert "lv-fold" not in html and "lv-fold" in str(macro("names")(MARKS, 20))


def test_texts_in_pieces():
    assert text_pieces("[0] and [12].") == [0, " and ", 12, "."]
    assert text_pieces("[x] [٣] [123456]") == ["[x] [٣] [123456]"]
    assert text_pieces("") == []


def test_style_and_script_hold_nothing_that_a_template_reads():
    for text in (regions_style(), regions_script()):
        assert not re.search(r"\{[{%#]|</", text)
