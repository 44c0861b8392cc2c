"""How a verdict came about is told from stored replies; nothing is asked again."""

import pytest
import torch
from verdict_replies import ranking, yes_or_no

from lavis.common.dist import World
from lavis.integrations.endpoint_config import EndpointCriticConfig
from lavis.integrations.endpoint_critic import EndpointCritic

ONE = World(0, 1, torch.device("cpu"))
PARTS = [{"question": "q", "answer": str(n), "rationale": "", "text": f"q {n}"} for n in range(2)]
RED, BLUE = torch.zeros(3, 20, 30, dtype=torch.uint8), torch.ones(3, 9, 8, dtype=torch.uint8)
SAMPLES = {"views": [[RED], [BLUE, RED]], "parts": PARTS, "image_index": [1, 0]}


def test_the_tokens_and_the_prompt_of_a_stored_reply(serve, settings, tmp_path):
    server = serve(lambda body, n: yes_or_no(0.5, 0.25, rest={" yes": 0.125, "The": 0.0625}))
    critic = EndpointCritic.from_config(EndpointCriticConfig(llm=settings(server)))
    assert critic.trace(SAMPLES) == [{"reject": "no reply is stored"}] * 2 and not server.bodies
    with critic.scoring(tmp_path / "out", ONE):
        scores = critic.predict(SAMPLES)["prediction"][:, 1]
    first, second = critic.trace(SAMPLES)
    assert len(server.bodies) == 2
    assert first["score"] == pytest.approx(scores[0].item()) == pytest.approx(0.625 / 0.875)
    assert first["top"] == [
        (token, pytest.approx(share))
        for token, share in (("Yes", 0.5), ("No", 0.25), (" yes", 0.125), ("The", 0.0625))
    ]
    assert [token for token, _ in first["yes"]] == ["Yes", " yes"]
    assert [token for token, _ in first["no"]] == ["No"]
    assert first["prompt"].startswith("<image>\n<image>\n") and "Answer: 0" in first["prompt"]
    assert [image is own for image, own in zip(first["images"], [BLUE, RED], strict=True)]
    assert "Answer: 1" in second["prompt"] and len(second["images"]) == 1
    assert first["reply"] == "Yes"


def test_a_reranker_has_no_tokens(serve, settings):
    server = serve(lambda body, n: ranking([0.5]))
    critic = EndpointCritic.from_config(EndpointCriticConfig(llm=settings(server), mode="rerank"))
    assert critic.trace(SAMPLES) == [{"reject": "no tokens: the mode is rerank"}] * 2
