"""Captions of images and of their regions: what the writer sees, and what becomes of its texts."""

import numpy as np
from PIL import Image
from recorded import Recorder, open_scene

from lavis.processors.region import DrawnRegion, draw_regions
from lavis.verbalizers.base import Tools, WriteError
from lavis.verbalizers.captions import CaptionWriter, RegionCaptionWriter
from lavis.verbalizers.config import CaptionsConfig, RegionCaptionsConfig, WriterConfig


def test_region_captions_show_the_drawn_region(world):
    config = RegionCaptionsConfig(
        type="region_captions", writer=WriterConfig(model="x"), prompt="what is {name} {id}?"
    )
    asked = Recorder(["a dog", WriteError("refused")])
    stage = RegionCaptionWriter(config, Tools("rc", 0, "cpu", lambda _: asked))
    found = stage.describe([open_scene(world)])
    assert found == [{"regions": {"0": {"caption": "a dog"}}, "failed": ["refused: region 3"]}]
    assert [request.prompt for request in asked.requests] == ["what is dog 0?", "what is dog 3?"]
    image = Image.open(world / "images" / "p2.png").convert("RGB")
    drawn = draw_regions(image, [DrawnRegion(0, (10, 10, 55, 38))], palette="distinct", width=2)
    np.testing.assert_array_equal(np.array(asked.requests[1].image), np.array(drawn))


def test_region_captions_show_the_cut_region_with_its_margin(world):
    config = RegionCaptionsConfig(
        type="region_captions", writer=WriterConfig(model="x"), show="crop", margin=0.2
    )
    asked = Recorder()
    RegionCaptionWriter(config, Tools("rc", 0, "cpu", lambda _: asked)).describe(
        [open_scene(world)]
    )
    image = Image.open(world / "images" / "p2.png").convert("RGB")
    # 25 x 26 pixels from (5, 4): 5 and 5.2 more on each side, cut at the image's edge.
    expected = image.crop((0, 0, 35, 35))
    np.testing.assert_array_equal(np.array(asked.requests[0].image), np.array(expected))


def test_captions_have_seeds_of_their_own_and_no_repeats(world):
    config = CaptionsConfig(type="captions", writer=WriterConfig(model="x"), samples=3)
    asked = Recorder(["a", "a", "b", WriteError("no"), "c", "c"])
    stage = CaptionWriter(config, Tools("cap", 5, "cpu", lambda _: asked))
    found = stage.describe([open_scene(world, 1), open_scene(world, 2)])
    assert found == [{"captions": ["a", "b"]}, {"captions": ["c"], "failed": ["no"]}]
    seeds = [request.seed for request in asked.requests]
    assert len(set(seeds)) == 6 and seeds[3:] == [
        stage.tools.seed_of("p2.png", n) for n in range(3)
    ]
