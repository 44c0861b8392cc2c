"""Canvases of tiling families on the worked picture; `test_frames` compares all sizes."""

import pytest

from lavis.common.errors import RecordError
from lavis.common.regions.conventions import convention_of

SIZE = (1280, 853)


@pytest.mark.parametrize(
    ("family", "options", "model", "place"),
    [
        ("internvl", {"crop_to_patches": True}, (1344, 896), (0, 0, 1344, 896)),
        ("internvl", {}, (448, 448), (0, 0, 448, 448)),
        ("molmo2", {"max_crops": 24}, (1442, 910), (0, 0, 1442, 910)),
        ("idefics3", {}, (1456, 1092), (0, 0, 1456, 1092)),
        ("smolvlm", {"do_image_splitting": False}, (364, 364), (0, 0, 364, 364)),
        ("llava_onevision", {}, (1536, 1152), (0, 64, 1536, 1088)),
        ("llama4", {}, (1344, 1008), (0, 0, 1280, 853)),
        ("perception_lm", {}, (3136, 2240), (0, 0, 3136, 2240)),
        ("phi4_multimodal", {}, (1344, 896), (0, 0, 1344, 895)),
        ("minicpmv4_6", {}, (1344, 896), (0, 0, 1344, 896)),
    ],
)
def test_the_worked_picture(family, options, model, place):
    frame = convention_of(family, options).frame(SIZE)
    assert (frame.model, frame.place) == (model, place)
    assert frame.visible() == (0, 0, *SIZE)  # padding hides nothing
    assert frame.to_model((0, 0)) == place[:2] and frame.to_model(SIZE) == place[2:]


def test_an_image_that_a_family_refuses():
    with pytest.raises(RecordError, match="3 x 2000 is too narrow for this family"):
        convention_of("phi4_multimodal", {}).frame((3, 2000))
