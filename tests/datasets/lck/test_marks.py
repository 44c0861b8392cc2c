"""Badges stand on their boxes, apart from each other, inside the image, whatever the boxes."""

import itertools
import random

import pytest

from lavis.datasets.lck.marks import place_badges, region_marks
from lavis.processors.region import DrawnRegion, css_color


def badge_rect(badge, number, width, height):
    """Pixels of a badge on an image shown `width` x `height`, by the rules of regions.css."""
    digits = len(str(number))
    small = max(width, height) < 265
    wide, high = (max(15, 6 + 6.7 * digits), 15) if small else (max(18, 8 + 7.3 * digits), 18)
    left = badge.left / 100 * width + badge.shift_x / 100 * wide
    top = badge.top / 100 * height + badge.shift_y / 100 * high
    return left, top, left + wide, top + high


def overlap(a, b):
    return min(a[2], b[2]) - max(a[0], b[0]) > 0.01 and min(a[3], b[3]) - max(a[1], b[1]) > 0.01


def touches(a, b):
    return all(min(a[i + 2], b[i + 2]) - max(a[i], b[i]) >= -0.5 for i in (0, 1))


def check(boxes, size, shown_long, on_box=True):
    badges = place_badges(boxes, range(len(boxes)), size)
    scale = shown_long / max(size)
    width, height = size[0] * scale, size[1] * scale
    rects = [badge_rect(badge, n, width, height) for n, badge in enumerate(badges)]
    for rect in rects:
        assert min(rect[:2]) >= -0.01 and rect[2] <= width + 0.01 and rect[3] <= height + 0.01
    assert not any(overlap(a, b) for a, b in itertools.combinations(rects, 2))
    for box, badge, rect in zip(boxes, badges, rects, strict=True):
        pixels = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
        assert badge.lead or touches(rect, [v / 100 for v in pixels])
        assert not (on_box and badge.lead)


@pytest.mark.parametrize("shown_long", [215, 265, 360, 900, 2000])
@pytest.mark.parametrize("size", [(640, 480), (400, 1584), (1600, 400), (30, 30)])
def test_badges_of_boxes_at_the_edge_touching_and_nested(size, shown_long):
    edge = [(0, 0, 100, 100), (0, 0, 30, 30), (98, 0, 100, 2), (0, 97, 2, 100), (97, 97, 100, 100)]
    check(edge, size, shown_long)
    check([(30, 40, 50, 60), (50, 40, 70, 60), (30, 60, 50, 80)], size, shown_long)
    check([(45, 45, 55, 55)] * 4, size, shown_long)
    check([(50, 50, 50, 50)], size, shown_long)  # no area at all


def test_a_crowd_in_one_place_is_set_apart_with_lines():
    boxes = [(48, 48, 51, 51)] * 32
    check(boxes, (640, 480), 265, on_box=False)
    badges = place_badges(boxes, range(32), (640, 480))
    assert sum(badge.lead is None for badge in badges) >= 3
    lead = next(badge.lead for badge in badges if badge.lead)
    assert 48 <= lead[2] <= 51 and 48 <= lead[3] <= 51  # it ends at the box


@pytest.mark.parametrize("seed", range(12))
def test_badges_of_random_boxes(seed):
    rng = random.Random(seed)
    boxes = []
    for _ in range(rng.randint(1, 24)):
        x, y = rng.uniform(0, 100), rng.uniform(0, 100)
        boxes.append((x, y, min(100, x + rng.expovariate(0.05)), min(100, y + rng.uniform(0, 40))))
    for size, shown in [((640, 480), 215), ((480, 640), 480), ((500, 375), 1200)]:
        check(boxes, size, shown, on_box=False)


def test_a_strip_too_thin_for_any_badge_still_gets_them():
    badges = place_badges([(0, 0, 50, 100), (50, 0, 100, 100)], [0, 1], (10, 2000))
    assert all(0 <= badge.left <= 100 and 0 <= badge.top <= 100 for badge in badges)
    assert badges[0].top != badges[1].top


def test_marks_of_what_is_drawn():
    polygon = (((10.0, 10.0), (30.0, 10.0), (20.0, 30.0)),)
    drawn = [
        DrawnRegion(0, (-10, 10, 50, 60)),
        DrawnRegion(1, (0, 0, 1, 1), polygon),
        DrawnRegion(3, (10, 10, 20, 20)),
    ]
    marks = region_marks(drawn, (100, 50), palette="distinct", names=["dog", "", "cat"])
    assert [m.number for m in marks] == [0, 1, 3]
    assert [m.color for m in marks] == [css_color(n, "distinct") for n in (0, 1, 3)]
    assert marks[0].box == (0, 20, 50, 80)  # clipped to the image
    assert marks[1].box == (10, 20, 20, 40)  # around the polygon
    assert [m.title for m in marks] == ["region 0: dog", "region 1", "region 3: cat"]
    assert [m.number for m in region_marks(drawn, (100, 50), palette="person_xyz")] == [0, 1]
    assert region_marks([], (100, 50)) == ()
