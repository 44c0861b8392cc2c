"""Shapes: boxes, masks and points of each other, the innermost point, and odd values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lavis.common.errors import RecordError
from lavis.common.regions.rle import Rle
from lavis.common.regions.shapes import Shape


def test_a_box_and_its_mask_by_hand():
    box = Shape.of_box((1, 2, 4, 3.4))
    mask = box.mask((6, 5))
    assert mask.shape == (5, 6) and mask.sum() == 3 and mask[2, 1:4].all()
    assert Shape.of_mask(mask).box() == (1, 2, 4, 3)
    assert box.centre() == box.innermost() == (2.5, 2.7)
    assert Shape.of_point((2.2, 3.9)).mask((6, 5)).nonzero() == (np.array([3]), np.array([2]))
    thin = Shape.of_box((1.6, 0, 1.9, 5)).mask((6, 5))  # no pixel's middle: the one at its centre
    assert thin.sum() == 1 and thin[2, 1]
    assert Shape.of_point((60, -3)).mask((6, 5))[0, 5]


@given(st.data())
def test_boxes_of_whole_pixels_survive_masks(data):
    width, height = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2 = data.draw(st.integers(x1 + 1, width))
    y2 = data.draw(st.integers(y1 + 1, height))
    box = Shape.of_box((x1, y1, x2, y2))
    mask = box.mask((width, height))
    assert mask.sum() == (x2 - x1) * (y2 - y1)
    assert Shape.of_mask(mask).box() == box.value
    assert Shape.of_polygons(box.parts()).box() == box.value


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=25)))
def test_the_innermost_point_is_inside_and_no_square_is_larger(mask):
    if not mask.any():
        with pytest.raises(RecordError, match="no pixel is inside"):
            Shape.of_mask(mask)
        return
    shape = Shape.of_mask(mask)
    x, y = shape.innermost()
    row, column = int(y), int(x)
    assert mask[row, column]

    def room(r, c):
        half = 0
        while True:
            part = mask[max(r - half, 0) : r + half + 1, max(c - half, 0) : c + half + 1]
            if part.shape != (2 * half + 1, 2 * half + 1) or not part.all():
                return half
            half += 1

    assert room(row, column) == max(room(r, c) for r, c in zip(*np.nonzero(mask), strict=True))


def test_the_innermost_point_of_a_ring_is_not_its_centre():
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:55] = True
    mask[12:28, 12:45] = False
    shape = Shape.of_mask(mask)
    assert shape.centre() == (30, 20)
    x, y = shape.innermost()
    assert x == 50.5 or x == 49.5
    polygons = Shape.of_polygons([((0, 0), (50, 0), (50, 50), (40, 50), (40, 10), (0, 10))])
    x, y = polygons.innermost()
    assert polygons.mask((60, 60))[int(y), int(x)] and not polygons.mask((60, 60))[25, 25]


def test_moving_by_hand():
    box = Shape.of_box((1, 2, 3, 4))
    assert box.moved((2, 3), (10, 0)).value == (12, 6, 16, 12)
    assert box.moved((-1, 1), (10, 0)).value == (7, 2, 9, 4)  # a mirrored box stays in order
    assert Shape.of_point((1, 2)).moved((2, 3), (0, 1)).value == (2, 7)
    polygons = Shape.of_polygons([((0, 0), (1, 0), (1, 2))]).moved((2, 2), (1, 1))
    assert polygons.value == (((1, 1), (3, 1), (3, 5)),)
    with pytest.raises(ValueError, match="resized with its image"):
        Shape.of_mask(np.ones((2, 2))).moved((1, 1), (0, 0))


@pytest.mark.parametrize(
    ("make", "value", "reason"),
    [
        (Shape.of_box, (1, 2, 3), "expected 4 numbers"),
        (Shape.of_box, (3, 2, 1, 4), "inverted"),
        (Shape.of_box, (1, 2, 3, float("nan")), "no pixels"),
        (Shape.of_box, (1, 2, 3, "4"), "no pixels"),
        (Shape.of_box, (1, 2, 3, True), "no pixels"),
        (Shape.of_box, (1, 2, 3, 10**400), "no pixels"),
        (Shape.of_box, 7, "no list of numbers"),
        (Shape.of_point, (1, 2, 3), "expected 2 numbers"),
        (Shape.of_polygons, [], "no points"),
        (Shape.of_polygons, [[]], "no points"),
        (Shape.of_polygons, [[(1, 2), (3, 4), 5]], "no list of numbers"),
        (Shape.of_mask, np.zeros((3, 3)), "no pixel is inside"),
    ],
)
def test_odd_values_are_refused(make, value, reason):
    with pytest.raises(RecordError, match=reason):
        make(value)


def test_a_mask_belongs_to_one_size():
    shape = Shape.of_mask(Rle((3, 2), (1, 2, 3)))
    assert shape.mask((3, 2)).sum() == 2
    with pytest.raises(RecordError, match="of \\(3, 2\\), the image of \\(2, 3\\)"):
        shape.mask((2, 3))
    with pytest.raises(ValueError, match="a mask has no points"):
        shape.parts()
