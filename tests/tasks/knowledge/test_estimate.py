"""What a generation would ask and cost: from a sample, without a request."""

import json
import time

import pytest
from generation_run import GOOD, OTHER, image, items, run

from lavis.common.config.sections import load_sections
from lavis.datasets.files.formats import open_records
from lavis.llm.config import LlmSettings
from lavis.tasks.knowledge.config import GenerateConfig, GenerationRunConfig
from lavis.tasks.knowledge.estimate import estimate
from lavis.tasks.knowledge.generation import KnowledgeGeneration

SECTIONS = {"llm": LlmSettings, "generate": GenerateConfig, "run": GenerationRunConfig}


def estimate_of(path, *options):
    """Return the estimate of a run file."""
    sections = load_sections(path, list(options), SECTIONS)
    records = open_records(sections["generate"].records)
    return estimate(KnowledgeGeneration(sections["generate"], records), sections["llm"])


def test_a_hundred_thousand_images_are_estimated_in_seconds(serve, job, settings):
    server = serve()
    prices = {"tiny": {"input": 0.15, "output": 0.6}}
    path = job(server, images=100_000, llm=settings(server, prices=prices))
    begun = time.monotonic()
    report = estimate_of(path, "generate.dry_run_sample=500")
    assert time.monotonic() - begun < 10
    assert report["requests"] == report["requests_to_send"] == 100_000
    assert 4e7 < report["prompt_tokens"] < 1.2e8
    assert report["completion_tokens_at_most"] == 80_000_000
    money = (report["prompt_tokens"] * 0.15 + 80e6 * 0.6) / 1e6
    assert report["cost_at_most"] == pytest.approx(money)
    assert report["token_estimate"] == "4 characters a token" and not server.bodies


def test_stored_replies_and_images_without_anything_to_ask_cost_nothing(serve, job, tmp_path):
    server = serve(lambda body, n: items(GOOD, OTHER))
    path = job(server, images=4)
    before = estimate_of(path)
    assert (before["requests"], before["stored_replies"], before["requests_to_send"]) == (4, 0, 4)
    assert run(path) == 0
    after = estimate_of(path)
    assert (after["requests"], after["stored_replies"], after["requests_to_send"]) == (4, 4, 0)
    assert after["prompt_tokens"] == after["completion_tokens_at_most"] == 0
    bare = {**image(9), "region_locations": [], "obj_guesses": []}
    (tmp_path / "words.jsonl").write_text(json.dumps(bare) + "\n")
    assert estimate_of(path)["requests"] + sum(estimate_of(path)["not_asked"].values()) == 1
