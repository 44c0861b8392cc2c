"""Local writers: texts that depend on their own seed only; what the writer sees."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.scenes import Scene
from lavis.processors.region import DrawnRegion, draw_regions
from lavis.verbalizers.base import Tools, WriteError, WriteRequest
from lavis.verbalizers.captions import CaptionWriter, RegionCaptionWriter
from lavis.verbalizers.config import (
    CaptionsConfig,
    DetectConfig,
    DynamicConfig,
    RegionCaptionsConfig,
    WriterConfig,
)
from lavis.verbalizers.detection import Detector, read_name
from lavis.verbalizers.dynamic import DynamicQuestions, read_questions, write_notes
from lavis.verbalizers.writing import LocalWriter, SeededNucleus


def open_scene(folder, number=2):
    """Return a scene of two regions, whose ids are 0 and 3."""
    entries = {"0": [5, 4, 30, 30], "3": [10, 10, 55, 38]}
    regions = {
        key: {"name": key, "boxes": [box], "obj_guess": "dog"} for key, box in entries.items()
    }
    record = {"image": f"p{number}.png", "region_locations": regions, "width": 60, "height": 40}
    return Scene(record, ImageRoot(str(folder / "images")), 10**6)


class Recorder:
    """A writer that keeps what it is asked, and answers from a list or with the request's key."""

    def __init__(self, answers=None):
        self.requests, self.answers = [], answers

    def write(self, requests):
        asked = list(requests)
        self.requests += asked
        return [self.answers.pop(0) if self.answers else request.key for request in asked]


def writer(folder, **options):
    return LocalWriter(WriterConfig(model=folder, max_tokens=6, **options), "cpu")


@pytest.mark.parametrize("name", ["blip2", "llava"])
def test_a_text_depends_on_its_seed_and_not_on_its_batch(tiny, image, name):
    requests = [
        WriteRequest(f"{p}-{s}", ["the", "red dog near"][p], each, 10 * p + s)
        for p, each in enumerate([image(0), image(1)])
        for s in range(3)
    ]
    together = writer(tiny(name), batch_size=4).write(requests)
    one = writer(tiny(name), batch_size=1)
    assert together == [one.write([request])[0] for request in reversed(requests)][::-1]
    assert len(set(together)) > 3


def test_greedy_captions_equal_blip2s_own(tiny, image):
    folder = tiny("blip2")
    request = WriteRequest("k", "red dog", image(3), 0)
    assert writer(folder, temperature=0).write([request, request]) == [_own(folder, request)] * 2


def _own(folder, request):
    model = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=request.image, text=request.prompt, return_tensors="pt")
    output = model.generate(**inputs, do_sample=False, max_new_tokens=6)
    new = output[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_the_nucleus_is_drawn_from_by_probability():
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4000, 1)
    picked = SeededNucleus(range(4000), 1.0, 0.75)(None, scores).argmax(dim=-1)
    shares = torch.bincount(picked, minlength=4) / 4000
    # 0.5 alone is below 0.75, 0.5 + 0.3 is above: two tokens, 5 : 3.
    torch.testing.assert_close(shares, torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    sharp = SeededNucleus(range(9), 0.01, 1.0)(None, scores[:9])
    assert sharp.argmax(dim=-1).tolist() == [0] * 9 and sharp.isfinite().sum() == 9


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


def test_questions_come_from_the_notes_and_answers_from_the_drawn_image(world):
    asker, answerer = Recorder(["1. What is [3] doing?\nIt is a dog.\n- Where is it?"]), Recorder()
    config = DynamicConfig(
        type="dynamic", asker=WriterConfig(model="a"), answerer=WriterConfig(model="b"), questions=2
    )
    stage = DynamicQuestions(
        config, Tools("d", 0, "cpu", lambda c: {"a": asker, "b": answerer}[c.model])
    )
    scene = open_scene(world)
    scene.record["captions"] = ["a dog runs"]
    scene.record["region_locations"]["3"]["attributes"] = ["red"]
    found = stage.describe([scene])[0]["dynamic"]
    assert [pair["question"] for pair in found] == ["What is [3] doing?", "Where is it?"]
    assert "Caption: a dog runs\n[0]: dog\n[3]: dog; red" in asker.requests[0].prompt
    drawn = scene.drawn([3], line_width="auto", image_size=480)
    np.testing.assert_array_equal(np.array(answerer.requests[0].image), np.array(drawn))
    assert answerer.requests[1].image is scene.read_image()


def test_questions_are_read_from_a_reply():
    reply = "Here are some.\n1) Who is [0]?\n(2) Why? 3. Who is [0]?\n* " + "x" * 400 + "?"
    assert read_questions(reply, 5) == ["Who is [0]?", "Why?"]
    assert (
        write_notes({"concepts": {"places": [{"text": "park", "score": 1}]}})
        == "Likely places: park"
    )


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
