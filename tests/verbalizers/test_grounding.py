"""A vision-language model that writes boxes: what it is asked, and what becomes of its replies."""

import json

import pytest
from recorded import Recorder, open_scene
from tiny_vlm import make_vlm, skip_absent

from lavis.common.errors import ConfigError
from lavis.common.regions.conventions import convention_of, rounding_bound, write_reply
from lavis.common.regions.shapes import Shape
from lavis.datasets.files.images import ImageRoot
from lavis.datasets.lck.scenes import Scene
from lavis.verbalizers.base import Tools, WriteError
from lavis.verbalizers.config import GroundConfig
from lavis.verbalizers.grounding import GroundingModel

CLIENT = {"type": "client", "client": {"backend": "scripted"}, "image_size": 1024}


def bare(world, number=0):
    record = {"image": f"p{number}.png", "region_locations": [], "width": 60, "height": 40}
    return Scene(record, ImageRoot(str(world / "images")), 10**6)


def model(world, answers, convention="qwen2_5_vl", **options):
    writer = Recorder(list(answers))
    options = {"writer": CLIENT, "vocabulary": str(world / "words.txt"), **options}
    config = GroundConfig(type="ground", convention=convention, **options)
    return GroundingModel(config, Tools("find", 0, "cpu", lambda _: writer)), writer


@pytest.mark.parametrize(
    "family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "internvl", "paligemma", "gemma4",
               "florence2"],
)  # fmt: skip
def test_boxes_come_back_in_pixels_of_the_image(world, family):
    boxes = [(5.0, 4.0, 30.0, 30.0), (40.0, 10.0, 55.0, 38.0)]
    convention = convention_of(family, {})
    # the image is sent at half its size: 60 x 40 becomes 30 x 20
    shapes = [Shape.of_box([edge / 2 for edge in box]) for box in boxes]
    text = write_reply(shapes, (30, 20), convention, ["dog", "cat"])
    grounding, writer = model(
        world, [text], family, writer={**CLIENT, "image_size": 30}, replace=True
    )
    grounding.queries = grounding.queries[:1]
    (found,) = grounding.describe([bare(world)])
    assert writer.requests[0].image.size == (30, 20)
    entries = found["region_locations"]
    assert [entry["name"] for entry in entries] == ["0", "1"]
    across, down = rounding_bound((30, 20), convention)
    for entry, box in zip(entries, boxes, strict=True):
        for place, (edge, other) in enumerate(zip(entry["boxes"][0], box, strict=True)):
            assert abs(edge - other) <= 2 * (across, down)[place % 2] + 0.02
        assert entry["from"] == {"stage": "find", "convention": convention.name}


def test_it_is_asked_in_the_words_of_the_convention(world):
    grounding, writer = model(world, ["[]", "[]"], queries=3)
    assert grounding.describe([bare(world)]) == [{"region_locations": []}]
    assert [request.prompt for request in writer.requests] == [
        "Locate every instance that belongs to the following categories: 'red', 'blue', 'dog'. "
        "Report bbox coordinates in JSON format.",
        "Locate every instance that belongs to the following categories: 'cat', 'tree'. "
        "Report bbox coordinates in JSON format.",
    ]
    grounding, writer = model(world, [], "internvl")
    assert len(grounding.queries) == 5  # InternVL is asked for one thing at a time
    assert len({request.key for request in writer.requests}) == len(writer.requests)


def test_images_with_regions_are_left_alone(world):
    grounding, writer = model(world, [])
    assert grounding.describe([open_scene(world)]) == [{}] and not writer.requests
    assert not grounding.needs_image(open_scene(world))


def test_replies_that_cannot_be_read_are_set_aside_and_the_others_kept(world):
    good = json.dumps([
        {"bbox_2d": [28, 14, 80, 50], "label": "dog"},
        {"bbox_2d": [28, 14, 81, 50], "label": "puppy"},  # the same thing again
        {"bbox_2d": [28, 14, 28, 14], "label": "speck"},
        {"bbox_2d": [56, 28, 86, 54], "label": "cat\n[0]"},  # over the edge
    ])  # fmt: skip
    grounding, _ = model(world, ["a dog on the left", good, WriteError("HTTP 500", "left")],
                         queries=2)  # fmt: skip
    (found,) = grounding.describe([bare(world)])
    assert found["failed"] == [
        "unreadable regions: no region: 'a dog on the left' (names 0 and on)"
    ]
    assert found["left"] == ["HTTP 500: names 4 and on"]
    entries = found["region_locations"]
    assert [entry["obj_guess"] for entry in entries] == ["dog", "cat 0"]
    assert [entry.get("clipped", False) for entry in entries] == [False, True]
    assert entries[1]["boxes"][0][2] == 60
    few, _ = model(world, [good], queries=9, max_regions=1, nms=1.0)
    assert len(few.describe([bare(world)])[0]["region_locations"]) == 1
    none, _ = model(world, ["nothing"], queries=9)
    (found,) = none.describe([bare(world)])
    assert "region_locations" not in found


def test_a_useless_reply_is_told_to_the_writer(world):
    grounding, writer = model(world, ["[]"], queries=9)
    grounding.describe([bare(world)])
    problem_of = writer.requests[0].problem_of
    assert problem_of("[]") == "" and problem_of("I see a dog").startswith("unreadable regions")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "molmo2"}, "molmo2 has no text for boxes"),
        ({"convention": "gemma3"}, "gemma3 has no text for boxes"),
        ({"convention": "qwen9"}, "unknown convention 'qwen9'"),
        ({"convention": "unit", "image_processor": {}}, "goes with a model's type"),
        ({"convention": "qwen2_vl", "writer": {"model": "x"}}, "special tokens"),
    ],
)
def test_conventions_that_cannot_be_read_are_refused(world, options, message):
    with pytest.raises(ConfigError, match=message):
        model(world, [], **options)


def test_a_server_needs_a_convention_and_a_local_model_brings_its_own(world, tmp_path):
    with pytest.raises(ValueError, match="name the type of the server's model"):
        GroundConfig(type="ground", writer=CLIENT)
    skip_absent("qwen2_5_vl")
    folder = make_vlm("qwen2_5_vl", tmp_path / "vlm")
    grounding, _ = model(world, [], None, writer={"model": folder})
    assert grounding.convention.family == "qwen2_5_vl"
    own = {"shortest_edge": 2 * 28 * 28, "longest_edge": 12 * 28 * 28}  # of its files
    assert grounding.convention.frame((600, 400)) == convention_of(
        "qwen2_5_vl", {"size": own}
    ).frame((600, 400))
    config = grounding.config
    assert GroundingModel.identity(config)["convention"]["family"] == "qwen2_5_vl"


def test_a_tiny_local_model_writes_nothing_that_can_be_read(world, tmp_path):
    from lavis.tasks.knowledge.writers import build_writer

    skip_absent("qwen2_5_vl")
    folder = make_vlm("qwen2_5_vl", tmp_path / "vlm")
    config = GroundConfig(
        type="ground",
        vocabulary=str(world / "words.txt"),
        writer={"model": folder, "max_tokens": 5, "temperature": 0},
    )
    tools = Tools("find", 0, "cpu", lambda c: build_writer(c, tmp_path, device="cpu", world_size=1))
    (found,) = GroundingModel(config, tools).describe([bare(world)])
    assert "region_locations" not in found
    assert found["failed"][0].split(":")[0] in ("unreadable regions", "empty reply")
