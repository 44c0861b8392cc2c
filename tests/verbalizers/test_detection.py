"""An open-vocabulary detector: its boxes, and the names that they go by."""

import numpy as np
import torch
from recorded import open_scene

from lavis.verbalizers.base import Tools
from lavis.verbalizers.config import DetectConfig
from lavis.verbalizers.detection import Detector, read_name


def test_the_detector_keeps_the_best_boxes_inside_the_image(tiny, world, image):
    options = {"model": tiny("owlv2"), "vocabulary": str(world / "words.txt"), "queries": 2}
    tools = Tools("detect", 0, "cpu", lambda _: None)
    every = Detector(
        DetectConfig(type="detect", threshold=0, nms=1, max_regions=99, **options), tools
    )
    first = image(1)
    model, processor = every.model, every.processor
    inputs = processor(images=[first], text=[["red", "blue"]], return_tensors="pt", padding=True)
    with torch.no_grad():
        raw = model(**inputs)
    x, y, width, height = raw.pred_boxes[0, 5].tolist()
    # The image, 60 x 40, is padded to 60 x 60: shares are of the longer edge.
    box = [60 * (x - width / 2), 60 * (y - height / 2), 60 * (x + width / 2), 60 * (y + height / 2)]
    box = [max(0.0, min(edge, most)) for edge, most in zip(box, (60, 40, 60, 40), strict=True)]
    entries = every.detect([first])[0]
    near = [e for e in entries if np.allclose(e["boxes"][0], box, atol=0.02)]
    assert near or box[2] - box[0] < 1 or box[3] - box[1] < 1
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(scores, reverse=True)
    assert [entry["name"] for entry in entries] == [str(n) for n in range(len(entries))]
    few = Detector(
        DetectConfig(type="detect", threshold=0, nms=0.3, max_regions=2, **options), tools
    )
    assert few.detect([first])[0][0] == entries[0] and len(few.detect([first])[0]) <= 2
    scene = open_scene(world)
    assert few.describe([scene]) == [{}]  # it has regions


def test_labels_of_grounding_dino_are_names_again():
    names = ["dog", "traffic light", "cat"]
    assert read_name("dog", names) == "dog"
    assert read_name("traffic light. [SEP]", names) == "traffic light"
    assert read_name("light", names) == "traffic light"
    assert read_name("[CLS] ball", names) == "ball"
    assert read_name("ผู้ชาย [SEP]", ["ผู้ชาย", "สุนัข"]) == "ผู้ชาย"
    assert read_name("the cafe\u0301.", ["caf\u00e9", "the bar"]) == "caf\u00e9"
