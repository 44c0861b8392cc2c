"""A block that starts as identity, and the gains that start at zero."""

from dataclasses import replace

import pytest
import torch

from lavis.models.late_fusion.identity import norm_gain_and_shift


def test_a_fresh_identity_block_predicts_as_the_text_alone(make_model, kind, texts, images):
    model, sample, seen = make_model(kind, init="identity"), texts(), images()
    with torch.no_grad():
        text = model.encode_text(**sample)
        fused = model.fuse(text, seen["vision_features"], seen["image_index"])
    kept = text.mask[:, None].expand(fused.shape[:3])
    plain = text.hidden[:, None].expand(fused.shape)
    found, expected = model.logits(fused[kept]), model.logits(plain[kept])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    loss = model({**sample, **seen, "scores": None, "labels": sample["input_ids"]})["loss"]
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())


def test_the_gain_of_either_kind_of_norm_is_found(make_model):
    layer = torch.nn.LayerNorm(8)
    gemma = make_model("gemma").fusion_layer.norm
    torch.nn.init.normal_(layer.weight), torch.nn.init.normal_(layer.bias)
    torch.nn.init.normal_(gemma.weight)
    gain, shift = norm_gain_and_shift(layer, 8)
    torch.testing.assert_close(gain, layer.weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shift, layer.bias, atol=1e-5, rtol=1e-5)
    gain, shift = norm_gain_and_shift(gemma, 32)
    torch.testing.assert_close(gain, 1 + gemma.weight, atol=1e-5, rtol=1e-5)
    assert not shift.any()


@pytest.mark.parametrize("kind", ["gemma2", "gemma3"])
def test_gains_that_start_at_zero_learn_faster_and_undecayed(make_model, kind):
    model = make_model(kind, init="identity")
    groups = model.get_optimizer_params(0.1)
    fast = [group for group in groups if group["lr_scale"] == 10]
    layer = model.fusion_layer.layers[0]
    gains = [layer.post_attention_layernorm.weight, layer.post_feedforward_layernorm.weight]
    assert {id(p) for group in fast for p in group["params"]} == {id(gain) for gain in gains}
    assert all(group["weight_decay"] == 0 for group in fast)
    assert not any(p is model.fusion_layer.norm.weight for g in groups for p in g["params"])
    model.config = replace(model.config, fusion=replace(model.config.fusion, gain_lr_scale=3.0))
    assert {group["lr_scale"] for group in model.get_optimizer_params(0.1)} == {1.0, 3.0}
