"""What scores of an endpoint depend on, and what may change between two starts."""

import json
from pathlib import Path

import pytest

from lavis.common.config.loading import load_config
from lavis.common.errors import ConfigError
from lavis.integrations.endpoint_config import EndpointCriticConfig

LLM = {"backend": "openai", "model": "m", "base_url": "http://h/v1"}
ROOT = Path(__file__).resolve().parents[2]


def identity(llm=(), **more):
    return EndpointCriticConfig(llm={**LLM, **dict(llm)}, **more).identity()


@pytest.mark.parametrize(
    "more",
    [
        {"mode": "judge"}, {"prompt": "vqascore"}, {"max_tokens": 9}, {"top_logprobs": 5},
        {"retry": "prefill"}, {"prefill": "So:"}, {"max_width": 0.2}, {"min_mass": 0.1},
        {"thinking": True}, {"query": "q"}, {"sigmoid": True}, {"max_documents": 2},
        {"yes_words": ["Sure"]}, {"no_words": ["Nope"]}, {"spellings": "exact"},
        {"over": "vocabulary"}, {"image_format": "jpeg"}, {"jpeg_quality": 5},
        {"llm": {"model": "other"}}, {"llm": {"base_url": "http://other/v1"}},
        {"llm": {"extra_body": {"a": 1}}},
    ],
    ids=str,
)  # fmt: skip
def test_scores_depend_on_what_is_sent_and_how_it_is_read(more):
    assert identity(**more) != identity()
    json.dumps(identity(**more))


@pytest.mark.parametrize(
    "llm",
    [
        {"concurrency": 2}, {"caps": {"max_requests": 3}}, {"timeout": 9}, {"rpm": 5},
        {"prices": {"m": {"input": 1, "output": 2}}}, {"cache_dir": "/x"}, {"max_attempts": 2},
        {"api_key_env": "OTHER_KEY"}, {"tokenizer": "t"},
    ],
    ids=str,
)  # fmt: skip
def test_but_not_on_money_and_haste(llm):
    assert identity(llm) == identity()


def test_the_server_may_have_a_name_of_its_own():
    moved = {"base_url": "http://other/v1", "server": "mine"}
    assert identity(moved) == identity({"server": "mine"})


def test_a_template_counts_by_its_text(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text("Is {{ text }} true? Yes or No.")
    first = identity(prompt=str(path))
    path.write_text("Is {{ text }} right? Yes or No.")
    assert identity(prompt=str(path)) != first


@pytest.mark.parametrize(
    "mode, name", [("logprobs", "lskd_accept"), ("judge", "judge"), ("rerank", "statement")]
)
def test_each_mode_has_a_prompt(mode, name):
    assert EndpointCriticConfig(llm=LLM, mode=mode).prompt_name == name


def test_a_missing_template_is_named():
    with pytest.raises((ConfigError, ValueError), match="'lskd' is neither a preset nor a jinja2"):
        EndpointCriticConfig(llm=LLM, prompt="lskd")


def test_any_run_file_takes_it_in_place_of_its_own_model(tmp_path):
    (tmp_path / "corpus.jsonl").touch()
    build = "datasets.unified_vqa_binary.build_info"
    config = load_config(
        ROOT / "lavis/projects/blip2/eval/lck/critic_filtering.yaml",
        [
            "model.arch=endpoint_critic", "model.llm.backend=openai", "model.llm.model=m",
            "model.llm.base_url=http://h/v1", f"run.output_dir={tmp_path}/out",
            f"{build}.annotations.test.storage={tmp_path}/corpus.jsonl",
            f"{build}.images.storage={tmp_path}",
        ],
    )  # fmt: skip
    assert isinstance(config.model, EndpointCriticConfig)
    node = config.tree["datasets"]["unified_vqa_binary"]
    assert node["vis_processor"]["eval"]["name"] == "vlm_image"
