"""Continuations that share a row keep their own target tokens."""

import torch

from lavis.integrations.harness_batches import Continuation, padded, target_tokens, text_before


def test_targets_stand_at_the_end_of_the_longest():
    continuations = [
        Continuation((1, 2, 3, 4), 2, "a"),
        Continuation((1, 2, 3, 5), 1, "a"),
        Continuation((7, 8), 1, "b"),
    ]
    targets, counts = target_tokens([[0, 1], [2]], continuations)
    assert targets.tolist() == [[[3, 4], [0, 5]], [[0, 8], [0, 0]]]
    assert counts.tolist() == [[2, 1], [1, 0]]


def test_rows_are_padded_on_either_side():
    rows = [(5, 6, 7), (8,)]
    right, left = padded(rows, side="right"), padded(rows, side="left")
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert right["input_ids"].dtype == torch.long


def test_an_answer_ends_before_any_stop_text():
    assert text_before("a cat. Then\nmore", ["\n", ".", ""]) == "a cat"
    assert text_before("whole", ["?"]) == "whole"
