"""Passes: what shares a beginning, how many rows and tokens one pass may have."""

import torch

from lavis.models.vlm.branches import TokenRow, shared_length
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.inputs import Encoded
from lavis.models.vlm.model import ImagePrompt


def rows(*ids, visible=2, behind=()):
    encoded = Encoded([list(one) for one in ids], {}, {}, visible)
    return [TokenRow(encoded, at, at, list(behind)) for at in range(len(ids))]


def test_the_longest_common_beginning_is_shared_and_the_last_token_never():
    assert shared_length(rows([7, 7, 1, 2], [7, 7, 1, 3])) == 3
    assert shared_length(rows([7, 7, 1, 2], [7, 7, 1, 2])) == 3
    assert shared_length(rows([7, 7, 1], [7, 7, 1, 2])) == 2


def test_what_does_not_hold_the_whole_image_is_not_shared():
    assert shared_length(rows([7, 7, 1], [7, 3, 1])) == 0
    assert shared_length(rows([7, 7], [7, 7])) == 0
    assert shared_length(rows([1, 2, 3], [1, 2, 4], visible=0)) == 0


def test_a_continuation_leaves_the_end_of_its_prompt_out():
    assert shared_length(rows([7, 7, 1, 2], [7, 7, 1, 2], behind=[5, 6])) == 3


def test_passes_keep_their_bounds(vlm_folder, views):
    calls = []

    def measured(**options):
        model = VlmCritic(VlmCriticConfig(name=vlm_folder("qwen2_5_vl"), dtype="fp32", **options))
        whole, calls[:] = model.vlm.forward, []

        def forward(*args, **inputs):
            calls.append(tuple(inputs["input_ids"].shape))
            return whole(*args, **inputs)

        model.vlm.forward = forward
        return model.next_token(views, [ImagePrompt(0, "a" * n) for n in range(1, 8)], [5, 6])

    expected = measured()
    assert [shape[0] for shape in calls] == [1, 7]
    by_rows = measured(max_texts_per_pass=3)
    assert [shape[0] for shape in calls] == [1, 3, 3, 1]
    length = calls[0][1]
    most = 2 * (length + calls[1][1])
    by_tokens = measured(max_tokens_per_pass=most)
    assert [shape[0] for shape in calls][:2] == [1, 2]  # of longer texts fewer at once
    assert sum(shape[0] for shape in calls) == 8
    assert all(n == 1 or n * (length + rest) <= most for n, rest in calls[1:])
    alone = measured(max_tokens_per_pass=1)  # one row is read however long it is
    assert [shape[0] for shape in calls] == [1] * 8
    for scores in (by_rows, by_tokens, alone):
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
