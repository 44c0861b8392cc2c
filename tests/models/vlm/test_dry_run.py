"""Without weights a critic counts what the one with weights reads, in every family and question."""

import pytest
import torch

from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.critic import VlmCritic

PARTS = [
    {"question": "what is [0]?", "answer": "a cat", "text": "a red cat", "options": ["a", "b"]},
    {"question": "where?", "answer": "a", "text": "a dog", "options": ["c", "d", "a red one"]},
    {"question": "what colour?", "answer": "blue is", "text": "a blue dog", "options": ["red"]},
]


@pytest.mark.parametrize("ask", ["predict", "answer_losses", "letters"])
def test_the_counts_are_those_of_the_reader(vlm_folder, views, family, ask):
    config = VlmCriticConfig(name=vlm_folder(family), dtype="fp32", max_texts_per_pass=2)
    samples = {"views": views, "parts": PARTS, "image_index": [1, 0, 1]}
    dry, critic = VlmCritic.for_dry_run(config), VlmCritic.from_config(config)
    found, expected = getattr(dry, ask)(samples), getattr(critic, ask)(samples)
    assert {name: len(value) for name, value in found.items()} == {
        name: len(value) for name, value in expected.items()
    }
    counts = dry.take_counts()
    assert counts["tokens"] == critic.reader.tokens
    assert counts["passes"] == sum(critic.reader.passes.values()) > 0

    assert not any(dry.take_counts().values()) and dry.costs(counts) == {}


def test_no_weight_is_loaded(vlm_folder):
    dry = VlmCritic.for_dry_run(VlmCriticConfig(name=vlm_folder("qwen3_vl")))
    assert all(weight.is_meta for weight in dry.vlm.parameters())
    assert dry.device == torch.device("cpu")
