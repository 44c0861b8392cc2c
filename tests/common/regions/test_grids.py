"""Numbers of conventions: bounds, overshoot, inverted corners, points of masks."""

import pytest

from lavis.common.errors import RecordError
from lavis.common.regions.conventions import (
    convention,
    convention_of,
    from_model,
    rounding_bound,
    to_model,
)
from lavis.common.regions.shapes import Shape

SIZE = (1280, 853)


def test_a_mask_is_pointed_at_from_within():
    ring = Shape.of_polygons([((0, 0), (90, 0), (90, 90), (70, 90), (70, 20), (0, 20))])
    (text,) = to_model([ring], (100, 100), convention("points"))
    (reply,) = from_model(text, (100, 100), convention("points"))
    x, y = (int(v) for v in reply.shape.value)
    assert ring.mask((100, 100))[y, x] and ring.centre() == (45, 45)
    assert not ring.mask((100, 100))[45, 45]


def test_overshoot_is_clipped_and_inverted_corners_are_swapped():
    text = '{"bbox_2d": [477, 937, -4, 1003], "label": ""}'
    (reply,) = from_model(text, SIZE, convention("per_mille_json"))
    assert reply.clipped and reply.shape.value == pytest.approx((0, 799.261, 610.56, 853))
    (reply,) = from_model("[477, 937, 79, 47]", SIZE, convention("per_mille"))
    assert not reply.clipped and reply.shape.value[:2] == pytest.approx((101.12, 40.091))
    (reply,) = from_model("<loc0958><loc0488><loc0048><loc0080> a", SIZE, convention("loc4"))
    assert reply.shape.value[:2] == pytest.approx((100.098, 40.023), abs=1e-3)


def test_bounds_by_hand():
    assert rounding_bound(SIZE, convention("per_mille")) == (0.64, 0.4265)
    assert rounding_bound(SIZE, convention("unit")) == (0.64, 0.4265)  # 3 decimals
    assert rounding_bound(SIZE, convention("loc_bins")) == (0.64, 0.4265)  # half a bin
    assert rounding_bound(SIZE, convention("point_percent")) == pytest.approx((0.64, 0.4265))
    assert rounding_bound(SIZE, convention("pixels")) == (0.5, 0.5)
    x, y = rounding_bound(SIZE, convention_of("qwen2_5_vl", {}))
    assert (x, y) == pytest.approx((1280 / 1204 / 2, 853 / 812 / 2))
    squashed = convention_of("kosmos-2", {"use_square_size": True})
    assert rounding_bound(SIZE, squashed) == pytest.approx((40, 853 / 32))


@pytest.mark.parametrize("size", [(0, 3), (3, -1), (2.5, 3), (3,)])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(RecordError, match="bad image size"):
        from_model("[1, 2, 3, 4]", size, convention("per_mille"))
    with pytest.raises(RecordError, match="bad image size"):
        to_model([Shape.of_box((0, 0, 1, 1))], size, convention("per_mille"))
