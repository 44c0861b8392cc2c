"""Run lengths: COCO's text by hand and by property, PNG masks, polygons, and odd masks."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lavis.common.errors import RecordError
from lavis.common.regions.rle import Rle, decode_counts, encode_counts, rasterize


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_runs_by_hand():
    assert encode_counts([5, 3, 10, 2, 4]) == "53:OJ"
    assert decode_counts("53:OJ") == [5, 3, 10, 2, 4]
    # 4 rows, 6 columns, column by column: pixels 5 to 7 and 18 to 19
    mask = Rle.of_coco({"size": [4, 6], "counts": "53:OJ"}).to_mask()
    assert mask.shape == (4, 6)
    assert sorted(zip(*np.nonzero(mask), strict=True)) == [(1, 1), (2, 1), (2, 4), (3, 1), (3, 4)]
    assert Rle.of_coco({"size": [4, 6], "counts": [5, 3, 10, 2, 4]}).to_mask().sum() == 5
    assert Rle.of_mask(np.ones((2, 2))).counts == (0, 4)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_masks_survive_every_form(mask):
    runs = Rle.of_mask(mask)
    coco = runs.to_coco()
    assert coco["size"] == list(mask.shape) and coco["counts"].isascii()
    np.testing.assert_array_equal(Rle.of_coco(coco).to_mask(), mask)
    np.testing.assert_array_equal(Rle.of_png(png(Image.fromarray(mask))).to_mask(), mask)
    assert runs.is_empty == (not mask.any())


@given(st.lists(st.integers(0, 2**28), max_size=12))
def test_every_length_survives_the_text(counts):
    assert decode_counts(encode_counts(counts)) == counts


def test_masks_of_png_files():
    grey = np.zeros((3, 5), np.uint8)
    grey[1, 2:4] = 1  # of two values what is not 0
    expected = grey == 1
    np.testing.assert_array_equal(Rle.of_png(png(Image.fromarray(grey))).to_mask(), expected)
    text = base64.b64encode(png(Image.fromarray(grey * 255))).decode()
    np.testing.assert_array_equal(Rle.of_png(text).to_mask(), expected)
    np.testing.assert_array_equal(Rle.of_png(f"data:image/png;base64,{text}").to_mask(), expected)
    soft = np.where(expected, 200, 0).astype(np.uint8)
    soft[0, 0], soft[2, 2] = 90, 130  # soft edges: above half
    expected[2, 2] = True
    np.testing.assert_array_equal(Rle.of_png(png(Image.fromarray(soft))).to_mask(), expected)
    rgba = np.full((3, 5, 4), 255, np.uint8)
    rgba[..., 3] = expected
    np.testing.assert_array_equal(
        Rle.of_png(png(Image.fromarray(rgba, "RGBA"))).to_mask(), expected
    )
    palette = Image.fromarray(expected.astype(np.uint8)).convert("L").convert("P")
    assert Rle.of_png(png(palette)).to_mask().sum() == expected.sum()


def test_polygons_fill_pixels_by_their_middle():
    mask = rasterize([((1, 1), (4, 1), (4, 3), (1, 3))], (6, 5))
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(mask, expected)
    triangle = rasterize([((0, 0), (4, 0), (0, 4))], (4, 4))
    assert triangle.tolist() == [
        [True, True, True, False],  # the middle of pixel 3 is at 3.5, on the edge
        [True, True, False, False],
        [True, False, False, False],
        [False] * 4,
    ]
    two = rasterize([((0, 0), (2, 0), (2, 2), (0, 2)), ((1, 1), (9, 1), (9, 9), (1, 9))], (3, 3))
    assert two.sum() == 4 + 4 - 1  # a union; outside is cut off
    assert not rasterize([((0, 0), (2, 2))], (3, 3)).any()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"size": [4, 6], "counts": "53:O"}, "cover 20 pixels of 6 x 4"),
        ({"size": [4, 6], "counts": [5, 3, 10, 2, 5]}, "cover 25 pixels"),
        ({"size": [4, 6], "counts": [5, -3, 22]}, "no lengths"),
        ({"size": [4, 6], "counts": [5, 3.5, 15.5]}, "no lengths"),
        ({"size": [4, 6], "counts": "53:Oé"}, "no run lengths"),
        ({"size": [4, 6], "counts": "53:Oo"}, "ends within"),
        ({"size": [4, 6], "counts": "o" * 5000}, "no run lengths"),
        ({"size": [4, 6], "counts": 24}, "expected a text or lengths"),
        ({"size": "46", "counts": "53:OJ"}, "expected height and width"),
        ({"size": [4], "counts": "53:OJ"}, "expected height and width"),
        ({"size": [4, True], "counts": "4"}, "expected two sides"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "expected two sides"),
        ({"size": [60000, 60000], "counts": [3600000000]}, "more than"),
        ("53:OJ", "expected size and counts"),
        (None, "expected size and counts"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_what_is_no_mask_is_refused(value, reason):
    with pytest.raises(RecordError, match=f"bad mask: .*{reason}"):
        Rle.of_coco(value)


def test_png_that_is_none_is_refused():
    jpeg = io.BytesIO()
    Image.new("L", (3, 3)).save(jpeg, "JPEG")
    for content in (b"", b"no png", jpeg.getvalue(), png(Image.new("L", (30, 30)))[:-30], "%%%"):
        with pytest.raises(RecordError, match="bad mask"):
            Rle.of_png(content)
