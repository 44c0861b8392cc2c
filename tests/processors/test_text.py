"""Text processors equal the golden texts, and refuse bad options."""

import json
from pathlib import Path

import pytest

from lavis.common.errors import ConfigError
from lavis.processors import load_processor
from lavis.processors.text import BlipUnifiedVqa

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "lskd" / "text"
PROCESSORS = json.loads((GOLDEN / "text_processors.json").read_text())


@pytest.mark.parametrize("name", ["blip_unified_vqa", "blip_caption", "blip_question"])
@pytest.mark.parametrize("case", PROCESSORS["cases"], ids=lambda c: c["text"].strip()[:20])
def test_processors_equal_the_golden_texts(name, case):
    options = {"max_words": case["max_words"]}
    if name != "blip_question":
        options["prompt"] = case["prompt"]
    processor = load_processor(name, options)
    extra = {}
    if name == "blip_unified_vqa" and "add_prompt" in case:
        extra["add_prompt"] = case["add_prompt"]
    assert processor(case["text"], **extra) == case[name]


@pytest.mark.parametrize(
    ("name", "options", "text", "expected"),
    [
        (
            "blip_unified_vqa",
            {"prompt": "question: "},
            "What is [0] doing? Answer: He (the man) runs.  ",
            "question: what is [0] doing? answer: he (the man) runs.",
        ),
        ("blip_caption", {}, "A photo: the man (left) runs!\n", "a photo the man left runs"),
        ("blip_question", {}, "What is [0] doing? (Left).  ", "what is [0] doing? left"),
    ],
)
def test_published_check_vectors(name, options, text, expected):
    assert load_processor(name, options)(text) == expected


def test_the_word_limit_is_70_from_a_config_and_50_from_the_constructor():
    words = " ".join(f"w{i}" for i in range(100))
    assert len(load_processor("blip_unified_vqa")(words).split()) == 70
    assert len(load_processor("blip_unified_vqa", {"name": "x"})(words).split()) == 70
    assert len(BlipUnifiedVqa()(words).split()) == 50
    assert PROCESSORS["default_max_words"] == 70


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("blip_unified_vqa", {"promt": ""}, "unknown option 'promt'.*did you mean 'prompt'"),
        ("blip_unified_vqa", {"max_words": 0}, "max_words is 0; use a whole number of 1 or more"),
        ("blip_caption", {"prompt": 3}, "blip_caption.prompt is 3; use a string"),
        ("blip_unified_vqq", {}, "did you mean 'blip_unified_vqa'"),
    ],
)
def test_bad_options_name_the_fix(name, options, message):
    with pytest.raises(ConfigError, match=message):
        load_processor(name, options)
