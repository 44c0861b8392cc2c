"""Dataset sections: LAVIS-shaped nodes are accepted, mistakes name key and fix."""

import pytest
from pydantic import TypeAdapter, ValidationError

from lavis.datasets.config import ContrastiveConfig, LaionConfig, LckConfig


@pytest.fixture
def node(tmp_path):
    (tmp_path / "r.jsonl").write_text("{}\n")
    return {
        "type": "default",
        "data_type": "images",
        "build_info": {
            "annotations": {"test": {"url": "x", "storage": ["r.jsonl"], "text_only": False}},
            "images": {"storage": str(tmp_path), "ann_root": str(tmp_path)},
        },
        "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": 32}},
        "text_processor": {"eval": {"name": "blip_unified_vqa", "prompt": ""}},
    }


def check(node, cls=LckConfig):
    return TypeAdapter(cls).validate_python(node)


def test_paths_are_joined_to_ann_root(node, tmp_path):
    config = check(node)
    assert config.record_paths("test") == [str(tmp_path / "r.jsonl")]
    assert config.image_root("test") == str(tmp_path)
    node["build_info"]["annotations"]["test"]["storage"] = str(tmp_path / "r.jsonl")
    assert check(node).record_paths("test") == [str(tmp_path / "r.jsonl")]


def test_csv_holds_the_roots_where_data_type_says_so(node, tmp_path):
    node["build_info"]["csv"] = node["build_info"].pop("images")
    node["data_type"] = "csv"
    config = check(node, ContrastiveConfig)
    assert config.record_paths("test") == [str(tmp_path / "r.jsonl")]
    assert config.max_regions is None


def test_retired_keys_of_a_split_are_named_once(node, caplog):
    node["build_info"]["annotations"]["test"]["use_generative"] = True
    check(node)
    (message,) = {record.getMessage() for record in caplog.records}
    assert message.startswith("build_info.annotations: ignored text_only (it never had an effect)")
    assert "use_generative (the critic has two classes)" in message
    assert "url" not in message


def test_processors_are_chosen_by_split(node):
    node["vis_processor"]["train"] = {"name": "blip_image_train"}
    config = check(node)
    assert config.processor("vis", "train_synthetic")["name"] == "blip_image_train"
    assert config.processor("vis", "test")["name"] == "blip_image_eval"
    assert config.processor("text", "train") == {"name": "base"}


def test_released_behaviour_is_the_default(node):
    config = check(node)
    assert (config.max_regions, config.palette, config.line_width) == (5, "released", 2)
    assert (config.region_prob, config.undrawn_regions) == (0.6, "number")
    assert config.label_polarity == "corrected"  # the one difference


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("vis_processor", "eval", "image_sise"), 3, "did you mean 'image_size'"),
        (("vis_processor", "eval", "name"), "blip_image_evil", "did you mean 'blip_image_eval'"),
        (("vis_processor", "eval"), {"image_size": 3}, "eval.name: missing; one of"),
        (("palette",), "bright", "Input should be 'released' or 'distinct'"),
        (("line_width",), 0, "line_width is 0; use 1 or more, or 'auto'"),
        (("max_regions",), -1, "max_regions is -1; use 0 or more"),
        (("region_prob",), 1.5, "region_prob is 1.5; use a probability"),
        (("max_pixels",), 10**9, "max_pixels is 1000000000; use 1 to 178956970"),
        (("build_info", "annotations", "test", "storage"), "no.jsonl", "no such file or folder: "),
        (
            ("build_info", "annotations", "test", "storage"),
            [0],
            "storage: 0 is a number; write it in q",
        ),
        (("build_info", "annotations", "test", "region_mapping"), "no", "no such file: no"),
        (("build_info", "images", "storage"), "/none/at/all", "no such image folder"),
        (("regoin_prob",), 1, "Unexpected keyword argument"),
    ],
)
def test_mistakes_name_the_fix(node, path, value, message):
    inner = node
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValidationError, match=message):
        check(node)


def test_caption_folders_need_no_image_root(node, tmp_path):
    node["build_info"]["images"]["storage"] = "/none/at/all"
    assert check(node, LaionConfig).record_paths("test") == [str(tmp_path / "r.jsonl")]
