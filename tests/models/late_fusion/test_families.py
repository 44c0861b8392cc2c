"""Every family: the library's own logits, a plain pass, identity, padding and batches."""

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.identity import norm_gain_and_shift

PATCHES = 5


def plain_pass(model, text, features, index):
    """Run the whole sequence `[patches ; text]` through the block, as released code does."""
    rows = []
    for b in range(len(text.hidden)):
        kept = text.keys[b]
        u = model.fusion_input.patches(model.mm_proj(features[index[b]]))  # (K, P, H)
        z = model.fusion_input.text(text.hidden[b][kept]).expand(len(u), -1, -1)
        whole = torch.cat([u, z], dim=1)
        rows.append(model.fusion_layer(inputs_embeds=whole).last_hidden_state[:, u.shape[1] :])
    return rows


def test_text_only_is_the_librarys_own(make_model, kind, texts):
    model, sample = make_model(kind), texts()
    own = model.llm(**sample).logits
    seen = sample["attention_mask"].bool()
    found = model.logits(model.encode_text(**sample).hidden)
    torch.testing.assert_close(found[seen], own[seen], atol=1e-5, rtol=1e-4)
    predicted = model.predict(sample)["log_probs"][:, 0]
    last = sample["attention_mask"].sum(dim=1) - 1
    expected = own[torch.arange(3), last].log_softmax(dim=-1)
    torch.testing.assert_close(predicted, expected, atol=1e-5, rtol=1e-4)


def test_text_rows_equal_those_of_a_plain_pass(make_model, kind, texts, images):
    model, sample, seen = make_model(kind), texts(first=2), images()
    features, index = seen["vision_features"], seen["image_index"]
    with torch.no_grad():
        text = model.encode_text(**sample)
        fused = model.fuse(text, features, index)
        expected = plain_pass(model, text, features, index)
    for b, rows in enumerate(expected):
        kept = fused[b][:, text.keys[b]]
        torch.testing.assert_close(kept, rows, atol=2e-5, rtol=1e-4)


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


def test_padding_batches_and_positions_change_nothing(make_model, kind, texts, images):
    model, seen = make_model(kind), images()
    right, left = texts(first=2), texts(first=2, side="left")
    whole = model.predict({**right, **seen}, details=True)
    other = model.predict({**left, **seen}, details=True)
    for name, value in whole.items():
        torch.testing.assert_close(other[name], value, atol=2e-5, rtol=1e-4)
    for b in range(3):
        length = int(right["attention_mask"][b].sum())
        alone = {
            "input_ids": right["input_ids"][b : b + 1, :length],
            "vision_features": seen["vision_features"],
            "image_index": seen["image_index"][b : b + 1],
            "scores": seen["scores"][b : b + 1],
        }
        for name, value in model.predict(alone, details=True).items():
            torch.testing.assert_close(value, whole[name][b : b + 1], atol=2e-5, rtol=1e-4)


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


def test_a_merged_start_token_is_not_seen_and_predicts_from_the_last_patch(
    make_model, texts, images
):
    model, seen = make_model("gemma"), images(1, 2)
    sample = texts((6,), first=2)
    changed = {name: value.clone() for name, value in sample.items()}
    features, index = seen["vision_features"], seen["image_index"]
    with torch.no_grad():
        text = model.encode_text(**sample)
        fused = model.fuse(text, features, index)
        text.hidden[:, 0] += 7.0
        again = model.fuse(text, features, index)
        patch = model.fuse(text, features, index, torch.tensor([[-1]]))
    assert changed["input_ids"][0, 0] == 2
    torch.testing.assert_close(fused, again)
    torch.testing.assert_close(fused[:, :, :1], patch)
    concat = make_model("gemma", gemma_layout="concat")
    assert bool(concat.encode_text(**sample).keys.all())


def test_opt_with_a_projection_takes_its_width_from_the_head(make_model, texts, images):
    sizes = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    model = make_model("opt", llm=sizes)
    assert model.mm_proj.linear2.out_features == 16
    found = model.predict({**texts(), **images()})["log_probs"]
    assert found.shape == (3, 1, 61) and bool(found.isfinite().all())
    with pytest.raises(ConfigError, match=r"fusion\.init: the layer of 'opt' cannot be started"):
        make_model("opt", init="identity", llm=sizes)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert", "roberta"])
def test_too_long_a_text_is_refused_before_the_table_ends(make_model, kind, texts, images):
    model = make_model(kind)
    fits = texts((64 - PATCHES,))
    model.predict({**fits, **images(1)})
    with pytest.raises(ConfigError, match=r"65 rows of patches and text, but this .* has 64"):
        model.predict({**texts((65 - PATCHES,)), **images(1)})


def test_features_of_another_tower_are_refused(make_model, texts, images):
    sample = {**texts(), **images()}
    sample["vision_features"] = sample["vision_features"][..., :7]
    with pytest.raises(ConfigError, match="vision features of width 7, but the projector reads 12"):
        make_model("llama").predict(sample)


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


def test_released_gemma_scales_what_enters_the_block(make_model):
    for kind in ("gemma", "gemma2", "gemma3"):
        assert make_model(kind).fusion_input.factor == pytest.approx(32**0.5)
        assert make_model(kind, init="identity").fusion_input.factor == 1
    assert make_model("llama").fusion_input.factor == 1


def test_the_block_has_no_token_table(make_model, kind):
    rows = [p.shape[0] for p in make_model(kind).fusion_layer.parameters()]
    assert 61 not in rows


def test_a_narrower_block_can_be_asked_for(make_model):
    for kind, ending in (("gpt2", "c_fc.bias"), ("opt", "fc1.bias"), ("llama", "up_proj.weight")):
        narrow = make_model(kind, intermediate_size=20)
        found = [p for n, p in narrow.fusion_layer.named_parameters() if n.endswith(ending)]
        assert [len(weight) for weight in found] == [20]


@pytest.mark.parametrize("kind", ["granite", "olmo2", "cohere", "starcoder2", "glm4", "gpt_neox"])
def test_other_families_are_checked_when_built(make_model, texts, images, kind):
    model, sample = make_model(kind), {**texts(), **images()}
    own = model.llm(**texts()).logits[0, 8].log_softmax(dim=-1)
    alone = model.predict(texts())["log_probs"][0, 0]
    torch.testing.assert_close(alone, own, atol=1e-5, rtol=1e-4)
    assert bool(model.predict(sample)["log_probs"].isfinite().all())


def test_images_are_seen_from_afar_where_the_first_layer_is_local(make_model, texts, images):
    model, sample = make_model("gpt_neo"), {**texts((9, 9, 9)), **images()}
    assert model.fusion_layer.h[0].attn.attention_type == "global"
    before = model.predict(sample)["log_probs"]
    sample["vision_features"] = sample["vision_features"] + 1
    assert (model.predict(sample)["log_probs"] - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_a_family_that_works_otherwise_is_refused(make_model, kind):
    with pytest.raises(ConfigError, match=rf"model\.llm: .* '{kind}' "):
        make_model(kind)
