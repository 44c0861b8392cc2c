"""Views of regions: numbers, crops, cut-outs and masks, pixel by pixel where that is short."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis.common.regions.rle import Rle
from lavis.processors.region import DrawnRegion, draw_regions
from lavis.processors.views import (
    _badge_size,
    _free_place,
    crop_window,
    cut_out,
    mark_regions,
    with_mask_channel,
)

RING = np.zeros((60, 80), bool)
RING[10:50, 10:70] = True
RING[20:40, 20:50] = False


def grey(size=(80, 60)):
    return Image.new("RGB", size, (100, 100, 100))


def test_a_mark_stands_on_the_innermost_point_in_its_colour():
    region = DrawnRegion(3, (10, 10, 70, 50), mask=Rle.of_mask(RING))
    marked = np.asarray(mark_regions(grey(), [region], width=2))
    drawn = np.asarray(draw_regions(grey(), [region], palette="distinct", width=2))
    rows, columns = np.nonzero((marked != drawn).any(axis=2))
    # the ring is widest on the right, x 50 to 70; a badge of one digit is 9 x 11 cells of a pixel
    assert (columns.min(), columns.max() + 1) == (55, 64)
    assert rows.max() + 1 - rows.min() == 11
    badge = marked[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    ink = (badge[2:9, 2:7] == 0).all(axis=2)
    digit = ["#####", "   # ", "  #  ", "   # ", "    #", "#   #", " ### "]
    assert ["".join("# "[not cell] for cell in row) for row in ink.tolist()] == digit
    assert tuple(badge[1, 1]) == (245, 173, 66)


def test_marks_grow_with_the_image():
    big, small = grey((1600, 1200)), grey()
    box = (100, 100, 1500, 1100)
    large = np.asarray(mark_regions(big, [DrawnRegion(0, box)]))
    plain = np.asarray(draw_regions(big, [DrawnRegion(0, box)], palette="distinct"))
    rows, columns = np.nonzero((large != plain).any(axis=2))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (9 * 8, 11 * 8)
    assert small.size == (80, 60)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([(80, 60), (640, 480), (3, 200)]))
def test_numbers_of_equal_regions_stand_apart_where_there_is_room(first, second, size):
    width, height = size
    regions = [DrawnRegion(n, (0, 0, width, height)) for n in (first, second)]
    marked = mark_regions(grey(size), regions)
    assert marked.size == size
    taken = []
    for region in regions:
        badge = _badge_size(region.color_id, 1)
        taken.append(_free_place(region, badge, size, taken))
    (a, b), shared = taken, min(size) > 30
    apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert apart or not shared
    assert min(min(place) for place in taken) >= 0


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((400, 300, 500, 360), (300, 240, 600, 420)),
        ((400, 300, 410, 310), (333, 233, 477, 377)),  # grown to 48
        ((0, 0, 100, 60), (0, 0, 200, 120)),  # cut at the edge
        ((700, 500, 900, 700), (500, 300, 800, 600)),
        ((100.5, 200.5, 200, 300), (1, 101, 300, 400)),
        ((800, 600, 800, 600), (728, 528, 800, 600)),
    ],
)
def test_crops_by_hand(box, window):
    assert crop_window(box, (800, 600)) == window


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_crops_hold_their_box_and_are_never_empty(width, height, data):
    xs = sorted(data.draw(st.floats(0, width)) for _ in range(2))
    ys = sorted(data.draw(st.floats(0, height)) for _ in range(2))
    left, top, right, bottom = crop_window((xs[0], ys[0], xs[1], ys[1]), (width, height))
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert left <= xs[0] and xs[1] <= right and top <= ys[0] and ys[1] <= bottom


def test_a_cut_out_and_a_mask_channel():
    region = DrawnRegion(0, (10, 10, 70, 50), mask=Rle.of_mask(RING))
    alone = np.asarray(cut_out(grey(), region))
    assert (alone[RING] == 100).all() and (alone[~RING] == 255).all()
    rgba = with_mask_channel(grey(), region)
    assert rgba.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(rgba)[..., 3], RING * 255)
    assert (np.asarray(rgba)[..., :3] == 100).all()
    box = np.asarray(with_mask_channel(grey(), DrawnRegion(0, (1, 2, 4, 5))))[..., 3]
    assert box.sum() == 9 * 255 and (box[2:5, 1:4] == 255).all()


def test_a_drawn_mask_pixel_by_pixel():
    mask = np.zeros((20, 20), bool)
    mask[4:14, 2:15] = True
    region = DrawnRegion(0, (2, 4, 15, 14), mask=Rle.of_mask(mask))
    drawn = draw_regions(Image.new("RGB", (20, 20), (100, 100, 100)), [region])
    for x, y in itertools.product(range(20), range(20)):
        if not (2 <= x < 15 and 4 <= y < 14):
            expected = (100, 100, 100)
        elif x in (2, 3, 13, 14) or y in (4, 5, 12, 13):
            expected = (5, 255, 55)
        else:
            expected = (119, 88, 113)
        assert drawn.getpixel((x, y)) == expected, (x, y)
    whole = DrawnRegion(0, (0, 0, 20, 20), mask=Rle.of_mask(np.ones((20, 20))))
    drawn = draw_regions(Image.new("RGB", (20, 20), (100, 100, 100)), [whole])
    assert drawn.getpixel((0, 0)) == (5, 255, 55) and drawn.getpixel((2, 2)) == (119, 88, 113)
