"""Digests follow weights; identities name what changed."""

import torch

from lavis.common.config.difference import difference
from lavis.runners.identity import WeightDigest, scoring_identity, training_identity


def test_digests_follow_weights_and_identities_name_what_changed(tiny):
    model = tiny.TinyModel()
    digest = WeightDigest(model)
    first = digest()
    assert first == digest() == WeightDigest(tiny.TinyModel())()
    with torch.no_grad():
        model.qa_head.bias.add_(1)
    assert digest() != first
    tree = {"model": {"arch": "x"}, "run": {"seed": 1, "num_workers": 2, "batch_size_eval": 8}}
    other = {"model": {"arch": "x"}, "run": {"seed": 2, "num_workers": 0, "batch_size_eval": 4}}
    trained = [training_identity(t) for t in (tree, other)]
    assert difference(*trained) == "run.seed is 1 there and 2 here"
    scored = [scoring_identity(t, data={}, weights="w") for t in (tree, other)]
    assert difference(*scored) == "run.batch_size_eval is 8 there and 4 here"
