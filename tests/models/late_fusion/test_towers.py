"""Vision towers: which tokens they give, from transformers and timm; what is frozen."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel

from lavis.common.errors import ConfigError
from lavis.models.late_fusion import towers
from lavis.models.late_fusion.config import VisionConfig
from lavis.models.late_fusion.towers import VisionTower, pool_tokens

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}


def folder(path, model_type: str, **more) -> str:
    AutoConfig.for_model(model_type, **{**SIZES, **more}).save_pretrained(path)
    return str(path)


def tower(**fields) -> VisionTower:
    torch.manual_seed(0)
    return VisionTower(VisionConfig(**{"weights": "config", **fields}))


@pytest.fixture
def image():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_clip_gives_the_patches_of_the_layer_before_the_last(tmp_path, image):
    path = folder(tmp_path / "clip", "clip_vision_model")
    ours = tower(name=path)
    states = ours.tower(pixel_values=image, output_hidden_states=True).hidden_states
    assert len(states) == 4 and ours.width == 16
    torch.testing.assert_close(ours(image), states[2][:, 1:])
    whole = tower(name=path, drop_class_token=False, layer=1)(image)
    torch.testing.assert_close(whole, states[1])
    large = torch.randn(1, 3, 48, 48)
    assert ours(large).shape == (1, 36, 16)


def test_a_whole_clip_folder_gives_its_vision_part(tmp_path, image):
    sizes = {**SIZES, "projection_dim": 8}
    config = AutoConfig.for_model(
        "clip", vision_config=sizes, text_config={"hidden_size": 16, "num_attention_heads": 2}
    )
    clip = AutoModel.from_config(config)
    clip.save_pretrained(tmp_path)
    ours = tower(name=str(tmp_path), weights="pretrained")
    expected = clip.vision_model(pixel_values=image, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ours(image), expected[:, 1:])


@pytest.mark.parametrize(
    ("model_type", "more", "patches"),
    [
        ("siglip_vision_model", {}, 16),
        ("dinov2", {}, 16),
        ("dinov2_with_registers", {"num_register_tokens": 4}, 16),
        ("vit", {}, 16),
    ],
)
def test_other_towers_give_patches_only(tmp_path, image, model_type, more, patches):
    ours = tower(name=folder(tmp_path / model_type, model_type, **more))
    assert ours(image).shape == (2, patches, 16)


@pytest.mark.parametrize(
    "model_type", ["clip_vision_model", "siglip_vision_model", "dinov2", "vit"]
)
def test_layers_behind_the_one_that_is_read_do_not_run(tmp_path, image, model_type):
    path = folder(tmp_path / model_type, model_type)
    for layer, runs in ((-1, 3), (-2, 2), (2, 2), (1, 1)):
        ours = tower(name=path, layer=layer, drop_class_token=False)
        expected = ours.tower(pixel_values=image, output_hidden_states=True).hidden_states[layer]
        called = []
        (stack,) = (m for m in ours.tower.modules() if isinstance(m, torch.nn.ModuleList))
        for block in stack:
            block.register_forward_hook(lambda *given, called=called: called.append(1))
        torch.testing.assert_close(ours(image), expected, atol=0, rtol=0)
        assert len(called) == runs


def test_many_images_are_encoded_in_parts(tmp_path, monkeypatch):
    ours = tower(name=folder(tmp_path / "clip", "clip_vision_model"))
    many = torch.randn(7, 3, 32, 32)
    whole = ours(many)
    monkeypatch.setattr(towers, "CPU_VIT_IMAGES", 3)
    with torch.no_grad():
        torch.testing.assert_close(ours(many), whole)


def test_timm_towers(image):
    name = "timm:vit_tiny_patch16_224"
    ours = tower(name=name, image_size=32)
    state = ours.tower.patch_embed(image) + 0
    assert state.shape[1] == 4
    found = ours(image)
    blocks = ours.tower.forward_intermediates(
        image, indices=[10], output_fmt="NLC", intermediates_only=True
    )[0]
    torch.testing.assert_close(found, blocks)
    assert ours.width == 192 and found.shape == (2, 4, 192)
    assert tower(name=name, image_size=32, drop_class_token=False)(image).shape == (2, 5, 192)


def test_maps_of_a_convolutional_network(tmp_path):
    body = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4))
    state = {f"body.{name}": value for name, value in body.state_dict().items()}
    save_file(state, tmp_path / "maps.safetensors")
    ours = tower(
        name="timm:tf_efficientnet_lite0",
        weights=str(tmp_path / "maps.safetensors"),
        out_indices=(2, 3, 4),
        grid=3,
        input_size=64,
    )
    found = ours(torch.randn(2, 3, 32, 32))
    assert found.shape == (2, 9, 40 + 112 + 320)
    for name, value in ours.tower.body.state_dict().items():
        torch.testing.assert_close(value, state[f"body.{name}"])
    save_file({"body.x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other\.safetensors lacks \d+ weights of 'timm:tf_eff"):
        tower(
            name="timm:tf_efficientnet_lite0",
            weights=str(tmp_path / "other.safetensors"),
            out_indices=(2,),
        )


def test_tokens_are_averaged_over_a_grid(tmp_path, image):
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    # rows 0-3, 4-7, ...: the mean of the top left four is (0 + 1 + 4 + 5) / 4
    assert pool_tokens(tokens, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    with pytest.raises(ConfigError, match="15 tokens form no square"):
        pool_tokens(tokens[:, 1:], 2)
    path = folder(tmp_path / "clip", "clip_vision_model")
    assert tower(name=path, grid=2)(image).shape == (2, 4, 16)


def test_towers_are_frozen_and_unknown_ones_named(tmp_path):
    ours = tower(name=folder(tmp_path / "clip", "clip_vision_model"))
    assert not any(p.requires_grad for p in ours.parameters())
    with pytest.raises(ConfigError, match=r"unknown timm model 'vit_tiny_patch1'; did you mean"):
        tower(name="timm:vit_tiny_patch1")
    with pytest.raises(ConfigError, match=r"model\.vision\.name: cannot build"):
        tower(name=str(tmp_path))
    with pytest.raises(ValueError, match=r"give model\.vision\.width"):
        VisionConfig(name=None)
    with pytest.raises(ValueError, match=r"model\.vision\.weights: no such file: pretraind"):
        VisionConfig(weights="pretraind")
    with pytest.raises(ValueError, match=r"out_indices is for convolutional networks of timm"):
        VisionConfig(out_indices=(1,))
