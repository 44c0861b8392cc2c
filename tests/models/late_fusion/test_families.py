"""What the table of families says, and how it is read."""

from types import SimpleNamespace

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.families import (
    check_family,
    first_position,
    scale_logits,
    submodule,
)


def test_released_gemma_scales_what_enters_the_block(make_model):
    for kind in ("gemma", "gemma2", "gemma3"):
        assert make_model(kind).fusion_input.factor == pytest.approx(32**0.5)
        assert make_model(kind, init="identity").fusion_input.factor == 1
    assert make_model("llama").fusion_input.factor == 1


def test_what_a_family_does_to_the_output_of_its_head():
    logits = torch.tensor([1.0, 8.0])
    capped = SimpleNamespace(model_type="gemma2", final_logit_softcapping=4.0)
    torch.testing.assert_close(scale_logits(logits, capped), 4 * (logits / 4).tanh())
    granite = SimpleNamespace(model_type="granite", logits_scaling=2.0)
    assert scale_logits(logits, granite).tolist() == [0.5, 4.0]
    cohere = SimpleNamespace(model_type="cohere2", logit_scale=0.25)
    assert scale_logits(logits, cohere).tolist() == [0.25, 2.0]
    assert scale_logits(logits, SimpleNamespace(model_type="llama")) is logits


def test_positions_of_roberta_start_behind_its_padding():
    assert first_position(SimpleNamespace(model_type="roberta", pad_token_id=1)) == 2
    assert first_position(SimpleNamespace(model_type="bert", pad_token_id=1)) == 0


def test_a_path_may_name_the_last_of_a_list():
    stack = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(torch.nn.GELU()))
    assert submodule(stack, "-1.0") is stack[1][0]
    assert submodule(stack, "1.weight.0") is None and submodule(torch.nn.ModuleList(), "-1") is None


def test_families_that_cannot_be_shown_images_say_why():
    for kind, reason in (("xlnet", "takes no mask"), ("bloom", "counts the distance"), ("t5", "a")):
        sizes = {"encoder_layers": 1, "decoder_layers": 1} if kind == "t5" else {}
        with pytest.raises(ConfigError, match=reason):
            check_family(SimpleNamespace(model_type=kind, **sizes))
