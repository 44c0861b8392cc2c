"""The critic against values of the released code, and what its batches promise."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lavis.models.blip2.keys import lavis_name


def close(actual, expected, tolerance=1e-4):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.fixture
def critic(make_critic):
    return make_critic(rationale_target="qa_label")


@pytest.fixture
def samples(golden):
    return {**golden.inputs, "text_input": golden.texts}


def test_hidden_states_scores_and_probabilities_equal_the_released_codes(critic, golden, samples):
    layers = []
    for layer in critic.qformer.model.encoder.layer:
        layer.register_forward_hook(lambda _, args, output: layers.append(output))
    ids, mask = critic.tokenize(golden.texts)
    assert torch.equal(ids, golden.outputs["input_ids"])
    assert torch.equal(mask, golden.outputs["attention_mask"])
    features = critic.encode_frozen(golden.inputs["image"])
    close(features, golden.outputs["vit_out"])
    close(critic.image_embeds(features), golden.outputs["image_embeds"])
    queries = critic.fused_queries(samples)  # with gradients, so that no layer is trimmed
    close(torch.stack(layers)[..., :8, :], golden.outputs["qformer_layer_outputs"][..., :8, :])
    seen = golden.outputs["attention_mask"].bool()
    text = torch.stack(layers)[:, :, 8:][:, seen]
    close(text, golden.outputs["qformer_layer_outputs"][:, :, 8:][:, seen])
    close(queries, golden.outputs["qformer_query_hidden"])
    close(critic.itm_head(queries), golden.outputs["itm_token_logits"])
    outputs = critic.predict(samples)
    close(outputs["logits"], golden.outputs["itm_logits"])
    close(outputs["prediction"], golden.outputs["prediction"], 1e-5)


def test_losses_and_gradients_equal_the_released_codes(critic, golden, samples):
    losses = critic(samples)
    names = {
        "loss": "loss_total_reference",
        "loss_label": "loss_label",
        "loss_qa": "loss_qa",
        "loss_r": "loss_r_reference",
    }
    for name, expected in names.items():
        close(losses[name], golden.outputs[expected], 1e-5)
    losses["loss"].backward()
    gradients = {lavis_name(n): p.grad for n, p in critic.named_parameters()}
    for name, expected in golden.gradients.items():
        close(gradients[name], expected, 1e-5)
    trained = [p for p in critic.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)


def test_rationale_head_learns_the_rationale_score_by_default(make_critic, golden, samples):
    losses = make_critic()(samples)
    close(losses["loss_r"], golden.outputs["loss_r_against_r_label"], 1e-5)


def test_each_head_has_a_weight_of_its_own(make_critic, golden, samples):
    critic = make_critic(qa_weight=0.25, r_weight=3.0)
    label, qa = golden.outputs["loss_label"], golden.outputs["loss_qa"]
    r = golden.outputs["loss_r_against_r_label"]
    assert abs(qa - r) > 1e-3  # else the weights could change places
    close(critic(samples)["loss"], label + 0.25 * qa + 3.0 * r, 1e-5)
    without_r = {name: value for name, value in samples.items() if name != "r_label"}
    losses = critic(without_r)
    assert "loss_r" not in losses
    close(losses["loss"], label + 0.25 * qa, 1e-5)


def test_labels_alone_give_the_label_loss_and_zero_gradients_elsewhere(critic, golden, samples):
    losses = critic({k: samples[k] for k in ("image", "text_input", "label")})
    assert set(losses) == {"loss", "loss_label", "logits"}
    close(losses["loss"], golden.outputs["loss_eval"], 1e-5)
    losses["loss"].backward()
    assert critic.qa_head[0].weight.grad.abs().max() == 0


@pytest.mark.parametrize("size", [42, 56])
def test_position_table_of_another_resolution_is_resampled(make_critic, golden, size):
    critic = make_critic(image_size=size)
    expected = load_file(golden.root / "resized_vit" / f"size_{size}.safetensors")
    close(critic.visual_encoder.pos_embed.data, expected["pos_embed"])
    close(critic.encode_frozen(expected["image"]), expected["vit_out"])
    outputs = critic.predict({"image": expected["image"], "text_input": golden.texts[:4]})
    close(outputs["logits"], expected["itm_logits"])
    close(outputs["prediction"], expected["prediction"], 1e-5)


def test_trainable_weights_and_optimizer_groups_are_the_released_codes(critic, golden):
    names = {id(p): lavis_name(n) for n, p in critic.named_parameters()}
    trained = {names[id(p)] for p in critic.parameters() if p.requires_grad}
    assert trained == set(golden.trainable["requires_grad"])
    # the head of a language model that scoring never runs, and a table of 0, 1, 2, ...
    unused = {
        "Qformer.cls.predictions.decoder.bias",
        "Qformer.bert.embeddings.position_ids",
    }
    written = set(golden.trainable["keys_written_by_the_trainer"]) - unused
    assert set(critic.trainable_state_dict()) == written
    groups = critic.get_optimizer_params(0.05, 0.95)
    assert [(g["weight_decay"], g["lr_scale"]) for g in groups] == [(0.05, 1), (0.0, 1)]
    for group, expected in zip(groups, golden.optimizer_groups, strict=True):
        assert {names[id(p)] for p in group["params"]} == set(expected["params"])


def test_lr_scale_of_tower_layers(make_critic):
    critic = make_critic(freeze_vit=False)
    names = {id(p): n for n, p in critic.named_parameters()}
    scale = {
        names[id(p)]: g["lr_scale"]
        for g in critic.get_optimizer_params(0.05, 0.5)
        for p in g["params"]
    }
    assert scale["visual_encoder.cls_token"] == 0.5**4  # 3 blocks: ids 0 to 4
    assert scale["visual_encoder.patch_embed.proj.weight"] == 0.5**4
    assert scale["visual_encoder.blocks.0.attn.q_bias"] == 0.5**3
    assert scale["visual_encoder.blocks.2.mlp.fc1.weight"] == 0.5
    assert scale["query_tokens"] == 1


def test_frozen_tower_stays_in_evaluation_mode(make_critic):
    critic = make_critic(drop_path_rate=0.5).train()
    assert critic.training and critic.qformer.training
    assert not any(module.training for module in critic.visual_encoder.modules())
    assert not any(p.requires_grad for p in critic.visual_encoder.parameters())


def test_fingerprint_follows_the_towers_weights_only(make_critic):
    critic, other = make_critic(), make_critic()
    assert critic.frozen_fingerprint() == other.frozen_fingerprint()
    with torch.no_grad():
        other.query_tokens.add_(1)
    other.load_state(other.full_state_dict())
    assert critic.frozen_fingerprint() == other.frozen_fingerprint()
    state = other.full_state_dict()
    state["visual_encoder.blocks.1.norm1.bias"] = state["visual_encoder.blocks.1.norm1.bias"] + 1
    other.load_state(state)
    assert critic.frozen_fingerprint() != other.frozen_fingerprint()


def test_filter_scores_equal_the_released_codes(make_critic, golden):
    expected = json.loads((golden.root / "filter" / "expected.json").read_text())
    records = expected["records"]
    image = load_file(golden.root / "filter" / "processed_images.safetensors")["pixel_values"]
    texts = [record["text"] for record in records]
    outputs = make_critic(max_txt_len=128).predict({"image": image, "text_input": texts})
    close(outputs["prediction"][:, 1], torch.tensor([r["score"] for r in records]), 1e-5)
