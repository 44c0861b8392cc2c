"""Adapters: where they are put, that they begin as nothing, and that merged ones say the same."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from lavis.common.errors import ConfigError
from lavis.models.lora import LoraOptions
from lavis.models.vlm.adapters import add_adapters, merge_adapters


@pytest.fixture
def vlm(vlm_folder):
    folder = vlm_folder("llava_onevision")  # its tower has layers q_proj, too
    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def logits(vlm):
    with torch.no_grad():
        return vlm(input_ids=torch.tensor([[1, 40, 41, 42]])).logits


def test_named_layers_are_those_of_the_language_model(vlm):
    add_adapters(vlm, LoraOptions(target_modules=["q_proj", "self_attn.v_proj"]))
    trained = [name for name, weight in vlm.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * 2 * 2  # A and B of two layers' two
    assert all(".language_model." in name and "lora_" in name for name in trained)


def test_a_layer_that_is_not_there_is_named(vlm):
    with pytest.raises(ConfigError, match=r"no linear layer 'q_prj'; did you mean 'q_proj'"):
        add_adapters(vlm, LoraOptions(target_modules=["q_prj"]))


def test_they_begin_as_nothing_and_merge_into_what_they_say(vlm):
    names = set(vlm.state_dict())
    plain = logits(vlm)
    add_adapters(vlm, LoraOptions(rank=4))
    assert torch.equal(logits(vlm), plain)
    with torch.no_grad():
        for name, weight in vlm.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    tuned = logits(vlm)
    assert not torch.allclose(tuned, plain, atol=1e-2)
    assert merge_adapters(vlm) == 14
    assert set(vlm.state_dict()) == names
    torch.testing.assert_close(logits(vlm), tuned, atol=1e-5, rtol=0)


def test_adapters_of_half_precision_models_are_float32(vlm):
    add_adapters(vlm.bfloat16(), LoraOptions())
    kinds = {weight.dtype for name, weight in vlm.named_parameters() if "lora_" in name}
    assert kinds == {torch.float32}
    assert logits(vlm).isfinite().all()
