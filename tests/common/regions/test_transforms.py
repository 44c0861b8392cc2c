"""Image, regions and texts move together: every shape against its own pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavis.common.errors import RecordError
from lavis.common.regions.conventions import convention, from_model, rounding_bound, to_model
from lavis.common.regions.rle import Rle
from lavis.common.regions.shapes import Shape
from lavis.common.regions.transforms import (
    AnnotatedImage,
    crop_shape,
    resize_mask,
    resize_shape,
    turn_shape,
)


def painted(size, box):
    """Return a black image with a white box."""
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


def kinds(box, size):
    """Return a box as every kind of shape."""
    shape = Shape.of_box(box)
    return (
        shape,
        Shape.of_polygons(shape.parts()),
        Shape.of_mask(shape.mask(size)),
        Shape.of_point(shape.centre()),
    )


def box_of(image):
    return Shape.of_mask(np.asarray(image) > 127).box()


@st.composite
def scenes(draw):
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    return (width, height), (x1, y1, x2, y2)


@given(scenes(), st.integers(1, 8))
def test_every_exif_orientation_turns_regions_with_their_pixels(scene, orientation):
    size, box = scene
    image = painted(size, box)
    image.getexif()[0x0112] = orientation
    upright = AnnotatedImage(image, kinds(box, size)).upright()
    expected = box_of(upright.image)
    whole, polygons, mask, point = upright.shapes
    assert whole.value == polygons.box() == mask.box() == expected
    assert point.value == Shape.of_box(expected).centre()
    assert upright.image.getexif().get(0x0112) is None
    assert upright.upright().shapes == upright.shapes  # nothing turns it twice
    if orientation in (5, 6, 7, 8):
        assert upright.image.size == size[::-1]


@given(scenes())
def test_mirroring_twice_changes_nothing(scene):
    size, box = scene
    seen = AnnotatedImage(painted(size, box), kinds(box, size), ("[0] is on the left",))
    mirrored = seen.mirrored()
    assert mirrored.texts == ("[0] is on the right",)
    assert [shape.box() for shape in mirrored.shapes[:3]] == [box_of(mirrored.image)] * 3
    back = mirrored.mirrored()
    assert back.shapes == seen.shapes and back.texts == seen.texts
    assert back.image.tobytes() == seen.image.tobytes()


def test_a_text_that_is_not_sure_stops_the_mirror():
    with pytest.raises(RecordError, match="no mirror image: the sides in 'he left' are not clear"):
        AnnotatedImage(Image.new("RGB", (4, 4)), (), ("a dog", "he left")).mirrored()


@given(scenes(), st.data())
def test_crops_cut_regions_as_pixels(scene, data):
    size, box = scene
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    right = data.draw(st.integers(left + 1, size[0]))
    bottom = data.draw(st.integers(top + 1, size[1]))
    window = (left, top, right, bottom)
    seen = AnnotatedImage(painted(size, box), kinds(box, size)[:3])
    visible = seen.image.crop(window).getbbox()
    if visible is None:
        assert crop_shape(seen.shapes[2], size, window) is None
        return
    cropped = seen.cropped(window)
    assert [shape.box() for shape in cropped.shapes] == [visible] * 3
    assert cropped.image.size == (right - left, bottom - top)


def test_a_region_outside_the_crop_is_named():
    seen = AnnotatedImage(Image.new("L", (20, 20)), kinds((0, 0, 4, 4), (20, 20)))
    with pytest.raises(RecordError, match=r"region outside the crop: number 0, 1, 2, 3 in \(10"):
        seen.cropped((10, 10, 20, 20))


def test_polygons_are_cut_at_the_edge():
    triangle = Shape.of_polygons([((0, 0), (10, 0), (0, 10)), ((30, 30), (31, 30), (31, 31))])
    cut = crop_shape(triangle, (40, 40), (0, 0, 5, 10))
    assert cut.box() == (0, 0, 5, 10) and len(cut.value) == 1
    expected = triangle.mask((40, 40))[:10, :5]
    np.testing.assert_array_equal(cut.mask((5, 10)), expected)
    mask = Shape.of_mask(triangle.mask((40, 40)))
    beyond = crop_shape(mask, (40, 40), (-2, -3, 5, 10))  # a window may pass the edges
    np.testing.assert_array_equal(beyond.mask((7, 13))[3:, 2:], expected)


@given(scenes(), st.integers(1, 60), st.integers(1, 60))
def test_resizing_there_and_back(scene, width, height):
    size, box = scene
    for shape in kinds(box, size):
        there = resize_shape(shape, size, (width, height))
        x1, y1, x2, y2 = there.box()
        assert 0 <= x1 <= x2 <= width + 1e-9 and 0 <= y1 <= y2 <= height + 1e-9
        back = resize_shape(there, (width, height), size).box()
        if shape.kind != "mask":
            assert back == pytest.approx(shape.box(), abs=1e-6)
        elif width >= size[0] and height >= size[1]:
            assert max(abs(a - b) for a, b in zip(back, shape.box(), strict=True)) <= 1


def test_a_resized_mask_keeps_a_pixel():
    mask = np.zeros((100, 100), bool)
    mask[97, 3] = True
    small = resize_mask(Rle.of_mask(mask), (7, 5))
    assert small.size == (7, 5) and small.to_mask().sum() == 1 and small.to_mask()[4, 0]
    seen = AnnotatedImage(painted((20, 10), (2, 2, 6, 4)), kinds((2, 2, 6, 4), (20, 10)))
    twice = seen.resized((40, 20))
    assert twice.image.size == (40, 20)
    assert [s.box() for s in twice.shapes[:3]] == [(4, 4, 12, 8)] * 3
    assert seen.resized((20, 10)) is seen


@settings(max_examples=100, deadline=None)
@given(scenes(), st.integers(1, 8), st.booleans(), st.sampled_from(["unit", "per_mille", "loc4"]))
def test_a_chain_of_changes_and_a_text_come_back(scene, orientation, flip, name):
    """EXIF, resize, flip, text and all back: within the bound of the text."""
    size, box = scene
    shape, spoken = Shape.of_box(box), convention(name)
    image = painted(size, box)
    image.getexif()[0x0112] = orientation
    seen = AnnotatedImage(image, (shape,)).upright()
    upright = seen.image.size
    seen = seen.resized((upright[0] * 3, upright[1] * 2))
    seen = seen.mirrored() if flip else seen
    (text,) = to_model(seen.shapes, seen.image.size, spoken)
    read = from_model(text, seen.image.size, spoken)[0].shape
    read = turn_shape(read, seen.image.size, 2) if flip else read
    read = resize_shape(read, seen.image.size, upright)
    read = turn_shape(read, upright, {6: 8, 8: 6}.get(orientation, orientation))
    bound = max(
        side / other
        for side, other in zip(rounding_bound(seen.image.size, spoken), (2, 2), strict=True)
    )
    assert max(abs(a - b) for a, b in zip(read.value, box, strict=True)) <= bound + 1e-6
