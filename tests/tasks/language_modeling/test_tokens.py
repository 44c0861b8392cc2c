"""Which positions of a batch of captions are targets, and which tokens are hidden."""

import torch

from lavis.tasks.language_modeling.tokens import IGNORED, target_positions


def test_a_causal_model_predicts_every_token_but_the_first():
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    labels = torch.tensor([[5, 6, 7], [8, 9, IGNORED]])
    positions, targets, valid = target_positions({"input_ids": ids, "labels": labels}, masked=False)
    assert positions.tolist() == [[0, 1], [0, 1]]
    assert targets.tolist() == [[6, 7], [9, 0]]
    assert valid.tolist() == [[True, True], [True, False]]


def test_a_single_token_has_no_target():
    batch = {"input_ids": torch.tensor([[5]]), "labels": torch.tensor([[5]])}
    positions, targets, valid = target_positions(batch, masked=False)
    assert positions.shape == targets.shape == (1, 1) and valid.tolist() == [[False]]


def test_a_model_that_fills_masks_predicts_hidden_tokens_only():
    labels = torch.tensor([[IGNORED, 6, IGNORED, 8], [IGNORED, IGNORED, 7, IGNORED]])
    batch = {"input_ids": torch.zeros(2, 4, dtype=torch.long), "labels": labels}
    positions, targets, valid = target_positions(batch, masked=True)
    assert positions[0].tolist() == [1, 3] and targets[0].tolist() == [6, 8]
    assert positions[1, 0] == 2 and targets[1, 0] == 7
    assert valid.tolist() == [[True, True], [True, False]]
