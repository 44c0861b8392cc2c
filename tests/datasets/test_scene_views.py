"""Images of verbalized records as a model is shown them."""

import numpy as np
import pytest
from PIL import Image

from lavis.common.errors import ConfigError, RecordError
from lavis.common.regions.conventions import convention_of, from_model, to_model
from lavis.common.regions.rle import Rle
from lavis.common.regions.shapes import Shape
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.scene_views import SceneViewer
from lavis.processors.region import DrawnRegion, draw_regions
from lavis.processors.views import crop_window, mark_regions

BOXES = ([5, 4, 60, 80], [100, 20, 290, 190], [10, 10, 30, 30])
RECORD = {"image": "a.png", "region_locations": [{"boxes": [box]} for box in BOXES]}


@pytest.fixture
def root(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((320, 200), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return ImageRoot(str(tmp_path))


def picture(root):
    return Image.open(root.find("a.png").path).convert("RGB")


def same(one, other):
    return one.size == other.size and (np.array(one) == np.array(other)).all()


def test_regions_keep_their_ids_in_colours_numbers_and_words(root):
    regions = [DrawnRegion(number, tuple(BOXES[number])) for number in (1, 2)]
    drawn = SceneViewer(root).view(RECORD, [1, 2])
    expected = draw_regions(picture(root), regions, palette="distinct", width=2)
    assert len(drawn.images) == 1 and same(drawn.images[0], expected)
    assert drawn.words == {
        1: "the box outlined in light blue",
        2: "the box outlined in light purple",
    }
    marks = SceneViewer(root, shows="marks").view(RECORD, [1, 2])
    assert same(marks.images[0], mark_regions(picture(root), regions))
    assert marks.words == {1: "the region marked 1", 2: "the region marked 2"}


def test_crops_follow_the_image_in_the_order_of_the_regions(root):
    both = SceneViewer(root, crops=True).view(RECORD, [0, 1])
    windows = [crop_window(tuple(BOXES[number]), (320, 200)) for number in (0, 1)]
    assert [image.size for image in both.images[1:]] == [
        (right - left, bottom - top) for left, top, right, bottom in windows
    ]
    assert same(both.images[2], both.images[0].crop(windows[1]))
    assert both.words[1] == "the box outlined in light blue, shown larger in image 3"
    alone = SceneViewer(root, shows="plain", whole=False, crops=True).view(RECORD, [0, 1])
    assert same(alone.images[0], picture(root).crop(windows[0]))
    assert alone.words == {0: "in image 1", 1: "in image 2"}
    marked = SceneViewer(root, shows="marks", whole=False, crops=True).view(RECORD, [1])
    assert marked.words == {1: "in image 1, the region marked 1"}


def test_coordinates_are_of_the_image_that_is_sent(root):
    viewer = SceneViewer(root, shows="coordinates", convention="qwen3_vl", max_pixels=16_000)
    view = viewer.view(RECORD, [0, 1])
    assert view.images[0].size == (160, 100)
    convention = convention_of("qwen3_vl", {})
    shapes = [Shape.of_box([edge / 2 for edge in BOXES[number]]) for number in (0, 1)]
    assert list(view.words.values()) == to_model(shapes, (160, 100), convention)
    (back,) = from_model(view.words[1], (320, 200), convention)
    assert back.shape.box() == pytest.approx(BOXES[1], abs=0.2)
    with pytest.raises(ConfigError, match="has no text for regions"):
        SceneViewer(root, shows="coordinates", convention="gemma3")


def test_a_mask_is_drawn_as_it_is(root):
    mask = np.zeros((200, 320), dtype=bool)
    mask[20:60, 30:90] = True
    entry = {"mask": Rle.of_mask(mask).to_coco(), "boxes": [[30, 20, 90, 60]]}
    view = SceneViewer(root).view({"image": "a.png", "region_locations": [entry]}, [0])
    changed = (np.array(view.images[0]) != np.array(picture(root))).any(axis=2)
    assert not (changed & ~mask).any() and changed[20:60, 30].all()
    assert view.words == {0: "the area outlined in green"}


def test_no_regions_and_plain_images_have_no_words(root):
    plain = SceneViewer(root, shows="plain").view(RECORD, [0])
    assert same(plain.images[0], picture(root)) and plain.words == {}
    assert SceneViewer(root).view(RECORD, []).words == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "none.png"}, "missing image: none.png"),
        ({"image": "broken.png"}, "broken image: broken.png"),
        ({"image": None}, "wrong type: image"),
        ({"image": "../a.png"}, "path leaves the image root"),
        ({"width": 640, "height": 400}, "another image: a.png has 320 x 200 pixels, not 640 x 400"),
        ({"region_locations": [{"boxes": [[400, 0, 500, 9]]}]}, "box outside the image: region 0"),
        ({"region_locations": [{"boxes": [[9, 0, 5, 9]]}]}, "bad box: region 0 is inverted"),
    ],
)
def test_what_cannot_be_shown_is_a_record_error(root, change, reason):
    with pytest.raises(RecordError, match=reason):
        SceneViewer(root).view({**RECORD, **change}, [0])


@pytest.mark.parametrize("sides", [(320, 200), (320.0, 200.0), (None, 200), ("320", "?")])
def test_a_size_that_says_nothing_else_is_no_reason(root, sides):
    record = {**RECORD, "width": sides[0], "height": sides[1]}
    assert SceneViewer(root).view(record, [0]).images[0].size == (320, 200)


def test_a_replaced_file_is_read_again(root):
    viewer = SceneViewer(root, shows="plain")
    before = viewer.view(RECORD, []).images[0]
    Image.new("RGB", (320, 200), (9, 9, 9)).save(root.find("a.png").path)
    assert not same(viewer.view(RECORD, []).images[0], before)
