"""Vision towers: which tokens they give, by name, from timm and transformers; what is frozen."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, CLIPVisionModel

from lavis.common.errors import ConfigError
from lavis.common.pixels import CLIP_MEAN, CLIP_STD
from lavis.models import vision
from lavis.models.blip2.config import VitConfig
from lavis.models.blip2.critic import Blip2Critic
from lavis.models.blip2.keys import resize_position_table
from lavis.models.late_fusion.config import VisionConfig
from lavis.models.vision import (
    VisionTower,
    build_vision_tower,
    pool_tokens,
)

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
    monkeypatch.setattr(vision, "CPU_VIT_IMAGES", 3)
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


SMALL = VitConfig(embed_dim=64, depth=2, num_heads=4)


def openai_names(model):
    """A transformers CLIP tower's weights under OpenAI's names."""
    state, named = model.state_dict(), {}
    for name, value in state.items():
        name = name.removeprefix("vision_model.")
        for theirs, openai in (
            ("embeddings.class_embedding", "class_embedding"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("embeddings.patch_embedding.", "conv1."),
            ("pre_layrnorm.", "ln_pre."),
            ("post_layernorm.", "ln_post."),
            ("encoder.layers.", "transformer.resblocks."),
            ("self_attn.", "attn."),
            ("layer_norm", "ln_"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            name = name.replace(theirs, openai)
        named[name] = value
    for name in [n for n in named if ".q_proj." in n]:
        parts = [named.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        named[name.replace("q_proj.", "in_proj_")] = torch.cat(parts)
    return named


@pytest.fixture
def clip():
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
        hidden_act="quick_gelu",
    )
    model = CLIPVisionModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def test_clip_tower_loads_openai_names_and_drops_the_last_block(clip, tiny_config, tmp_path):
    names = openai_names(clip)
    save_file(names, tmp_path / "clip.safetensors")
    vit = VitConfig(embed_dim=64, depth=2, num_heads=4, weights=str(tmp_path / "clip.safetensors"))
    model = Blip2Critic.from_config(tiny_config(vit_model="clip_L", vit=vit))
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected = clip(image, output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(model.encode_frozen(image), expected, rtol=0, atol=1e-4)
    written = {k: v for k, v in model.full_state_dict().items() if k.startswith("visual_encoder.")}
    for name, value in written.items():
        assert torch.equal(value, names[name.removeprefix("visual_encoder.")]), name
    other = Blip2Critic(tiny_config(vit_model="clip_L", vit=SMALL))
    other.load_state(model.full_state_dict(), strict_frozen=True)
    assert torch.equal(other.encode_frozen(image), model.encode_frozen(image))


def test_eva_tower_has_39_blocks_and_no_final_norm():
    with torch.device("meta"):
        tower = build_vision_tower("eva_clip_g", 480, VitConfig())
    assert tower.depth == 39 and tower.num_features == 1408
    assert tower.pos_embed.shape == (1, 1157, 1408)
    assert sum(p.numel() for p in tower.parameters()) == 987_161_728
    assert isinstance(tower.norm, torch.nn.Identity)


def test_the_inner_width_of_a_towers_mlp_is_a_ratio_of_its_width():
    vit = VitConfig(embed_dim=64, depth=2, num_heads=4, mlp_ratio=2.5)
    assert build_vision_tower("clip_L", 28, vit).blocks[0].mlp.fc1.out_features == 160


def test_any_timm_vision_transformer_by_name():
    tower = build_vision_tower("vit_tiny_patch16_224", 32, VitConfig(depth=1))
    assert tower(torch.randn(2, 3, 32, 32)).shape == (2, 5, 192)


@pytest.mark.parametrize(
    ("name", "vit", "message"),
    [
        ("eva_clip_q", VitConfig(), "unknown tower 'eva_clip_q'; did you mean 'eva_clip_g'"),
        ("tf_efficientnet_lite0", VitConfig(), r"model\.vit\.out_indices"),
        ("tf_efficientnet_lite0", VitConfig(out_indices=(9,)), r"cannot give stages \[9\]"),
    ],
)
def test_towers_that_cannot_be_built(name, vit, message):
    with pytest.raises(ConfigError, match=message):
        build_vision_tower(name, 64, vit)


def test_feature_maps_become_tokens_of_a_grid(tiny_config, tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=7).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    vit = VitConfig(
        out_indices=(1, 2, 3), grid=4, input_size=64, weights=str(tmp_path / "net.safetensors")
    )
    model = Blip2Critic.from_config(tiny_config(vit_model="tf_efficientnet_lite0", vit=vit))
    image = torch.rand(2, 3, 64, 64)
    clip_mean, clip_std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():  # the network itself, on the image in its own normalisation
        maps = net.forward_intermediates((image - 0.5) / 0.5, indices=5, intermediates_only=True)
    expected = torch.cat([F.adaptive_avg_pool2d(m, 4) for m in maps[1:4]], dim=1)
    expected = expected.flatten(2).transpose(1, 2)  # (P, 16, 24 + 40 + 112)
    model.train()
    tokens = model.encode_frozen((image - clip_mean) / clip_std)
    assert tokens.shape == (2, 16, 176)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-4)


def test_feature_maps_at_another_size_are_resized(tiny_config):
    vit = VitConfig(out_indices=(2,), grid=2, input_size=64)
    tower = build_vision_tower("tf_efficientnet_lite0", 28, vit).eval()
    constant = torch.full((1, 3, 28, 28), 0.3)
    torch.testing.assert_close(tower(constant), tower(torch.full((1, 3, 64, 64), 0.3)))


def test_position_table_keeps_its_prefix_and_needs_square_grids():
    table = torch.randn(1, 5, 8)
    grown = resize_position_table(table, 17)
    assert torch.equal(grown[:, :1], table[:, :1])
    grid = table[:, 1:].reshape(1, 2, 2, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(grown[:, 1:], expected)
    assert torch.equal(resize_position_table(table, 5), table)
    corners = resize_position_table(table, 17, align_corners=True)
    torch.testing.assert_close(corners[:, [1, 4, 13, 16]], table[:, 1:])
    with pytest.raises(ConfigError, match="not square grids"):
        resize_position_table(table, 7)


@pytest.mark.parametrize("name", ["eva_clip_g", "tf_efficientnet_lite0"])
def test_half_precision_keeps_norms_and_outputs_in_float32(tiny_config, monkeypatch, name):
    """What a GPU does, in bfloat16 on the CPU."""
    torch.manual_seed(0)
    vit = SMALL if name == "eva_clip_g" else VitConfig(out_indices=(2,), grid=2)
    model = Blip2Critic(tiny_config(vit_model=name, vit=vit)).eval()
    image = torch.randn(2, 3, 28, 28)
    whole = model.encode_frozen(image)
    monkeypatch.setattr(model, "_compute_dtype", lambda: torch.bfloat16)
    half = model.encode_frozen(image)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0.05, atol=0.05 * whole.abs().max().item())
    assert not torch.equal(half, whole)
    dtypes = {n.rsplit(".", 1)[-1]: p.dtype for n, p in model.visual_encoder.named_parameters()}
    if name == "eva_clip_g":
        assert dtypes["q_bias"] == dtypes["cls_token"] == torch.float32
        assert model.visual_encoder.blocks[0].norm1.weight.dtype == torch.float32
        assert model.visual_encoder.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
