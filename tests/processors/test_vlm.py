"""What a vision-language model is shown of an image."""

import numpy as np
import pytest
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.processors import load_processor
from lavis.processors.region import DrawnRegion, draw_regions
from lavis.processors.vlm import pixels

REGIONS = (DrawnRegion(0, (2, 2, 20, 12)), DrawnRegion(1, (5, 5, 30, 18)))


def test_the_image_keeps_its_size_and_is_drawn_as_the_critic_sees_it():
    image = Image.new("RGB", (33, 20), (10, 200, 30))
    drawn = load_processor("vlm_image")(image, regions=REGIONS, width=2)
    plain = load_processor("vlm_image", {"shows": "plain"})(image, regions=REGIONS)
    assert drawn.regions == ("[0]", "[1]")
    assert drawn.views[0].shape == (3, 20, 33)
    expected = np.array(draw_regions(image, REGIONS, width=2))
    assert (drawn.views[0].permute(1, 2, 0).numpy() == expected).all()
    assert (plain.views[0] == pixels(image)).all()


def test_an_unknown_way_is_refused():
    with pytest.raises(ConfigError, match="shows is 'all'; use one of drawn, plain"):
        load_processor("vlm_image", {"shows": "all"})
