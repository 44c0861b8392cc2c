"""Families beyond the table are tried when they are built, and refused where they differ."""

import pytest
import torch

from lavis.common.errors import ConfigError


@pytest.mark.parametrize("kind", ["granite", "olmo2", "cohere", "starcoder2", "glm4", "gpt_neox"])
def test_other_families_are_checked_when_built(make_model, texts, images, kind):
    model, sample = make_model(kind), {**texts(), **images()}
    own = model.llm(**texts()).logits[0, 8].log_softmax(dim=-1)
    alone = model.predict(texts())["log_probs"][0, 0]
    torch.testing.assert_close(alone, own, atol=1e-5, rtol=1e-4)
    assert bool(model.predict(sample)["log_probs"].isfinite().all())


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_a_family_that_works_otherwise_is_refused(make_model, kind):
    with pytest.raises(ConfigError, match=rf"model\.llm: .* '{kind}' "):
        make_model(kind)
