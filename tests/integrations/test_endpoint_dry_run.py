"""Requests, tokens and money of a run with an endpoint, without a server."""

import pytest
import torch
from chat_server import completion
from verdict_replies import ranking, yes_or_no

from lavis.common.dist import World
from lavis.integrations.endpoint_config import EndpointCriticConfig
from lavis.integrations.endpoint_critic import EndpointCritic

ONE = World(0, 1, torch.device("cpu"))
PARTS = [{"question": "q", "answer": str(n), "rationale": "", "text": f"q {n}"} for n in range(3)]


def samples(sizes=((20, 30), (20, 30))):
    views = [[torch.zeros(3, *size, dtype=torch.uint8)] for size in sizes]
    return {"views": views, "parts": PARTS, "image_index": [0, 1, 1]}


def test_nothing_is_sent_and_what_is_stored_costs_nothing(serve, settings, tmp_path):
    server = serve(lambda body, n: yes_or_no(0.6, 0.3))
    llm = settings(server, prices={"tiny": {"input": 1000.0, "output": 2000.0}})
    config = EndpointCriticConfig(llm=llm)
    dry = EndpointCritic.for_dry_run(config)
    outputs = dry.predict(samples())
    assert outputs["prediction"].shape == (3, 2) and "notes" not in outputs
    counts = dry.take_counts()
    assert (counts["requests"], counts["requests_to_send"], server.bodies) == (3, 3, [])
    assert counts["completion_tokens_at_most"] == 3 * config.reply_tokens
    assert counts["tokens"] == counts["prompt_tokens"] + counts["completion_tokens_at_most"]
    cost = dry.costs(counts)
    expected = (counts["prompt_tokens"] * 1000 + 24 * 2000) / 1e6
    assert cost["cost_at_most"] == pytest.approx(expected, abs=1e-4)
    assert dry.take_counts()["requests"] == 0
    critic = EndpointCritic.from_config(config)
    with critic.scoring(tmp_path / "out", ONE):
        critic.predict(samples())
    dry.predict(samples())
    counts = dry.take_counts()
    assert counts["stored_replies"] == len(server.bodies) == 3
    assert counts["tokens"] == 0 and dry.costs(counts)["cost_at_most"] == 0


def test_larger_images_cost_more_by_the_providers_rule(serve, settings):
    server = serve(lambda body, n: completion("x"))
    config = EndpointCriticConfig(llm=settings(server, image_token_rule={"rule": "qwen_vl"}))
    tokens = []
    for side in (100, 1500):
        dry = EndpointCritic.for_dry_run(config)
        dry.predict(samples([(side, side)] * 2))
        tokens.append(dry.take_counts()["prompt_tokens"])
    assert tokens[1] > tokens[0] + 3 * 100


@pytest.mark.parametrize(("mode", "requests"), [("rerank", 2), ("score", 2), ("judge", 3)])
def test_other_modes(serve, settings, mode, requests):
    server = serve(lambda body, n: ranking([0.5]))
    dry = EndpointCritic.for_dry_run(EndpointCriticConfig(llm=settings(server), mode=mode))
    dry.predict(samples())
    assert dry.take_counts()["requests"] == requests and server.bodies == []
    assert "cost_at_most" not in dry.costs({})
