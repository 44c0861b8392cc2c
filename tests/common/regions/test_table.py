"""The table of conventions: names, prompts, descriptions."""

import json

import pytest

from lavis.common.errors import ConfigError
from lavis.common.regions.conventions import convention, convention_of

CHECKPOINT_25 = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(
        ConfigError, match="unknown convention 'per_mile'; did you mean 'per_mille'"
    ):
        convention("per_mile")
    with pytest.raises(ConfigError, match="'qwen4_vl' is known; did you mean 'qwen3_vl'"):
        convention_of("qwen4_vl", {})


def test_prompts():
    qwen = convention_of("qwen3_vl", {})
    assert qwen.detection_prompt(["a dog", "cat"]) == (
        "Locate every instance that belongs to the following categories: 'a dog', 'cat'. Report "
        "bbox coordinates in JSON format."
    )
    assert qwen.pointing_prompt(["the red cup"]) == "pointing: the red cup"
    assert convention("loc4").detection_prompt(["dog", "cat"]) == "detect dog ; cat"
    assert convention("points").pointing_prompt(["the cup"]) == "Point to the cup"
    with pytest.raises(ConfigError, match="ask for one thing"):
        convention("ref_box").detection_prompt(["dog", "cat"])
    with pytest.raises(ConfigError, match="no question for points"):
        convention("loc4").pointing_prompt(["dog"])


def test_descriptions_are_json_and_tell_settings_apart():
    one, two = convention_of("qwen2_5_vl", {}), convention_of("qwen2_5_vl", CHECKPOINT_25)
    assert json.dumps(one.describe()) != json.dumps(two.describe())
    assert json.loads(json.dumps(one.describe()))["steps"] == "pixels"
