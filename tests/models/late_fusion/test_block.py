"""The fusion block: no table of words, a layer that sees all rows, a width of its own."""

import pytest
import torch


@pytest.mark.parametrize("kind", ["gpt2", "gemma3", "bert"])
def test_a_sharded_layer_runs_to_its_end(make_model, texts, images, kind):
    model, sample = make_model(kind), {**texts(), **images(), "labels": texts()["input_ids"]}
    expected = model(sample)["loss"]
    for weight in model.fusion_layer.parameters():
        weight.ds_id = 0  # DeepSpeed's mark
    ends = []
    model.fusion_layer.register_forward_hook(lambda *_: ends.append(1))
    torch.testing.assert_close(model(sample)["loss"], expected)
    assert len(ends) == 3  # keys of the images, keys of the texts, rows


def test_the_block_has_no_token_table(make_model, kind):
    rows = [p.shape[0] for p in make_model(kind).fusion_layer.parameters()]
    assert 61 not in rows


def test_a_narrower_block_can_be_asked_for(make_model):
    for kind, ending in (("gpt2", "c_fc.bias"), ("opt", "fc1.bias"), ("llama", "up_proj.weight")):
        narrow = make_model(kind, intermediate_size=20)
        found = [p for n, p in narrow.fusion_layer.named_parameters() if n.endswith(ending)]
        assert [len(weight) for weight in found] == [20]


def test_images_are_seen_from_afar_where_the_first_layer_is_local(make_model, texts, images):
    model, sample = make_model("gpt_neo"), {**texts((9, 9, 9)), **images()}
    assert model.fusion_layer.h[0].attn.attention_type == "global"
    before = model.predict(sample)["log_probs"]
    sample["vision_features"] = sample["vision_features"] + 1
    assert (model.predict(sample)["log_probs"] - before).abs().max() > 1e-3


def test_the_mlp_of_a_llama_block_has_biases_where_they_are_asked_for(make_model):
    def biases(**fields):
        names = dict(make_model("llama", **fields).fusion_layer.named_parameters())
        return sorted(name for name in names if name.endswith("_proj.bias"))

    assert biases() == []
    ours = biases(llama_mlp_bias=True)
    assert ours == [f"layers.0.mlp.{name}_proj.bias" for name in ("down", "gate", "up")]
