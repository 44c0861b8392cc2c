"""Every form of checkpoint the critic reads, and what it says when one does not fit."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from lavis.common.checkpoint import save_safetensors
from lavis.common.errors import ConfigError, DataError
from lavis.models.blip2.config import VitConfig
from lavis.models.blip2.critic import Blip2Critic

DECODER = "Qformer.cls.predictions.decoder.weight"


WORDS = "Qformer.bert.embeddings.word_embeddings.weight"


def built(tiny_config, **changes):
    return Blip2Critic.from_config(tiny_config(load_pretrained=True, **changes))


def as_written_by_the_trainer(golden):
    kept = golden.trainable["keys_written_by_the_trainer"]
    return {k: golden.state[k] for k in kept}


def tower_of(golden):
    return {k: v for k, v in golden.state.items() if k.startswith("visual_encoder.")}


@pytest.mark.parametrize("form", ["plain", "under_model", "wrapped", "no_position_ids", "half"])
def test_full_pth_files(tiny_config, golden, score, tmp_path, form):
    state = dict(golden.state)
    if form == "wrapped":
        state = {f"module.{k}": v for k, v in state.items()}
    if form == "no_position_ids":
        del state["Qformer.bert.embeddings.position_ids"]
    if form == "half":
        state = {k: v.half() if "visual_encoder" in k else v for k, v in state.items()}
    content = state if form in ("plain", "wrapped") else {"model": state, "config": {}, "epoch": 1}
    torch.save(content, tmp_path / "critic.pth")
    logits = score(built(tiny_config, pretrained=str(tmp_path / "critic.pth")))
    tolerance = 0.05 if form == "half" else 1e-4
    torch.testing.assert_close(logits, golden.outputs["itm_logits"], rtol=0, atol=tolerance)


def test_trainable_only_file_takes_words_from_the_decoder_and_the_tower_from_its_own_file(
    tiny_config, golden, score, tmp_path
):
    state = as_written_by_the_trainer(golden)
    assert WORDS not in state and DECODER in state
    torch.save({"model": state}, tmp_path / "critic.pth")
    plain = {k.removeprefix("visual_encoder."): v for k, v in tower_of(golden).items()}
    extra = {"blocks.3.norm1.weight": torch.ones(64), "head.weight": torch.ones(2, 64)}
    torch.save(plain | extra, tmp_path / "tower.pth")
    sizes = {"embed_dim": 64, "depth": 3, "num_heads": 4}
    vit = VitConfig(**sizes, weights=str(tmp_path / "tower.pth"))
    logits = score(built(tiny_config, pretrained=str(tmp_path / "critic.pth"), vit=vit))
    torch.testing.assert_close(logits, golden.outputs["itm_logits"], rtol=0, atol=1e-4)


def test_missing_tower_says_where_to_name_it(tiny_config, golden, tmp_path):
    torch.save({"model": as_written_by_the_trainer(golden)}, tmp_path / "critic.pth")
    with pytest.raises(ConfigError, match=r"critic\.pth lacks 43 weights .*model\.vit\.weights"):
        built(tiny_config, pretrained=str(tmp_path / "critic.pth"))


def test_missing_trainable_weights_are_an_error_unless_allowed(tiny_config, golden, tmp_path):
    state = {k: v for k, v in golden.state.items() if "layer.1.attention.self" not in k}
    save_file(state, tmp_path / "critic.safetensors")
    path = str(tmp_path / "critic.safetensors")
    with pytest.raises(ConfigError, match=r"lacks 6 weights.*model\.allow_missing=true"):
        built(tiny_config, pretrained=path)
    built(tiny_config, pretrained=path, allow_missing=True)


def test_file_of_another_model_is_named_as_such(tiny_config, tmp_path):
    save_file({"encoder.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="none of its weights belongs to this model"):
        built(tiny_config, pretrained=str(tmp_path / "other.safetensors"))


def test_stage1_file_scores_although_the_score_heads_are_new(
    tiny_config, golden, score, tmp_path, caplog
):
    state = {k: v for k, v in golden.state.items() if not k.startswith(("qa_head.", "r_head."))}
    state |= {"temp": torch.tensor(0.07), "vision_proj.weight": torch.ones(24, 48)}
    torch.save({"model": state}, tmp_path / "stage1.pth")
    with caplog.at_level(logging.WARNING):
        model = built(tiny_config, pretrained=str(tmp_path / "stage1.pth"))
    torch.testing.assert_close(score(model), golden.outputs["itm_logits"], rtol=0, atol=1e-4)
    assert "qa_head.*.weight (2)" in caplog.text and "random until trained" in caplog.text
    assert "no place" not in caplog.text


def test_own_checkpoints_round_trip(make_critic, tiny_config, golden, score, tmp_path):
    critic = make_critic()
    for name, state in (("all", critic.full_state_dict()), ("new", critic.trainable_state_dict())):
        save_safetensors(tmp_path / f"{name}.safetensors", state)
    whole = built(tiny_config, pretrained=str(tmp_path / "all.safetensors"))
    assert torch.equal(score(whole), score(critic))
    with torch.no_grad():
        whole.query_tokens.zero_()
        whole.qformer.embeddings.word_embeddings.weight.zero_()
    report = whole.load_checkpoint(str(tmp_path / "new.safetensors"))
    assert torch.equal(score(whole), score(critic))
    assert report.missing_trainable == () and len(report.missing) == 43  # the frozen tower


def test_shape_that_cannot_fit_names_both_shapes(make_critic, golden):
    state = {**golden.state, "itm_head.weight": torch.ones(3, 48)}
    with pytest.raises(ConfigError, match=r"itm_head\.weight has shape \[3, 48\], .* is \[2, 48\]"):
        make_critic().load_state(state)


def test_word_table_of_another_vocabulary_is_filled_as_far_as_it_goes(make_critic, golden):
    state = {k: v for k, v in golden.state.items() if "decoder" not in k}
    state[WORDS] = golden.state[WORDS][:30522]  # a file made before [DEC] was added
    report = make_critic().load_state(state)
    assert report.resized == {
        "qformer.embeddings.word_embeddings.weight": ((30522, 48), (30523, 48))
    }


def test_folder_without_weights_is_refused(tiny_config, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="no weights in the folder"):
        built(tiny_config, pretrained=str(tmp_path))


def test_config_refuses_a_file_that_is_not_there_and_none_at_all(tiny_config):
    with pytest.raises(ValueError, match=r"model\.pretrained: no such file or folder: no\.pth"):
        tiny_config(load_pretrained=True, pretrained="no.pth")
    with pytest.raises(ValueError, match=r"set model\.load_pretrained=false"):
        tiny_config(load_pretrained=True)


def test_weights_about_to_be_replaced_are_not_drawn(tiny_config, golden, tmp_path):
    save_file(golden.state, tmp_path / "critic.safetensors")
    config = tiny_config(load_pretrained=True, pretrained=str(tmp_path / "critic.safetensors"))
    bare = Blip2Critic(config)
    assert not bare.visual_encoder.blocks[0].mlp.fc1.weight.any()
    assert not bare.qformer.model.encoder.layer[0].intermediate.dense.weight.any()
    assert bare.qa_head[0].weight.any() and bare.query_tokens.any()  # a file may lack the heads
    assert Blip2Critic(tiny_config()).visual_encoder.blocks[0].mlp.fc1.weight.any()


LAYERS = {
    "visual_encoder.blocks": r"model\.vit\.depth",
    "Qformer.bert.encoder.layer": r"model\.qformer\.num_hidden_layers",
}


def with_layers(state, stack, count):
    """Return weights with `count` layers of a stack: the first ones, or copies of the last."""
    numbers = {int(k[len(stack) + 1 :].split(".")[0]) for k in state if k.startswith(f"{stack}.")}
    last = f"{stack}.{max(numbers)}."
    found = {}
    for name, value in state.items():
        if not name.startswith(f"{stack}.") or int(name[len(stack) + 1 :].split(".")[0]) < count:
            found[name] = value
        if name.startswith(last):
            for number in range(max(numbers) + 1, count):
                found[name.replace(last, f"{stack}.{number}.")] = value
    return found, len(numbers)


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("stack", LAYERS)
def test_another_depth_is_refused(tiny_config, golden, tmp_path, stack, change, allow_missing):
    _, own = with_layers(golden.state, stack, 1)
    state, _ = with_layers(golden.state, stack, own + change)
    torch.save({"model": state}, tmp_path / "critic.pth")
    wanted = (
        rf"critic\.pth has {own + change} layers of \S+, the model has {own}; "
        rf"set {LAYERS[stack]}={own + change}, or name a checkpoint of the same depth"
    )
    with pytest.raises(ConfigError, match=wanted):
        built(tiny_config, pretrained=str(tmp_path / "critic.pth"), allow_missing=allow_missing)


def test_a_layer_that_is_missing_in_between_is_refused(tiny_config, golden, tmp_path):
    state = {k: v for k, v in golden.state.items() if not k.startswith("visual_encoder.blocks.1.")}
    torch.save({"model": state}, tmp_path / "critic.pth")
    with pytest.raises(ConfigError, match=r"has 2 layers of visual_encoder\.blocks.*3; name a"):
        built(tiny_config, pretrained=str(tmp_path / "critic.pth"), allow_missing=True)


@pytest.mark.parametrize("change", [-1, 2])
def test_a_tower_file_of_another_depth_is_refused(tiny_config, golden, tmp_path, change):
    state, _ = with_layers(tower_of(golden), "visual_encoder.blocks", 3 + change)
    plain = {k.removeprefix("visual_encoder."): v for k, v in state.items()}
    torch.save(plain, tmp_path / "tower.pth")
    torch.save({"model": as_written_by_the_trainer(golden)}, tmp_path / "critic.pth")
    vit = VitConfig(embed_dim=64, depth=3, num_heads=4, weights=str(tmp_path / "tower.pth"))
    with pytest.raises(ConfigError, match=r"tower\.pth has . layers of visual_encoder\.blocks"):
        built(tiny_config, pretrained=str(tmp_path / "critic.pth"), vit=vit)
    with pytest.raises(ConfigError, match=r"layers of visual_encoder\.blocks"):
        Blip2Critic.from_config(tiny_config(load_pretrained=False, vit=vit))


def test_half_a_tower_without_a_checkpoint_is_refused(tiny_config, golden, tmp_path):
    plain = {k.removeprefix("visual_encoder."): v for k, v in tower_of(golden).items()}
    del plain["pos_embed"]
    torch.save(plain, tmp_path / "tower.pth")
    vit = VitConfig(embed_dim=64, depth=3, num_heads=4, weights=str(tmp_path / "tower.pth"))
    with pytest.raises(ConfigError, match=r"tower\.pth lacks 1 weights of the tower: visual_enc"):
        Blip2Critic.from_config(tiny_config(load_pretrained=False, vit=vit))
