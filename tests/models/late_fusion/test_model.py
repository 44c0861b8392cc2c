"""The registered model: its config files, images of samples, fingerprints."""

import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig

from lavis.common.config.loading import load_model_config
from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion


@pytest.fixture
def seeing(llm_folder, tmp_path):
    """A tiny Llama with a tiny CLIP tower."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    AutoConfig.for_model(
        "clip_vision_model", intermediate_size=24, image_size=16, patch_size=8, **sizes
    ).save_pretrained(tmp_path / "clip")
    torch.manual_seed(0)
    return LateFusion.from_config(
        LateFusionConfig(
            llm=str(llm_folder("llama")),
            llm_weights="config",
            vision=VisionConfig(name=str(tmp_path / "clip"), weights="config"),
            weights="mean",
        )
    ).eval()


def test_the_default_yaml_names_all_but_the_language_model():
    config, preprocess = load_model_config("late_fusion", "default", {"llm": "gpt2"})
    assert isinstance(config, LateFusionConfig)
    assert config.llm == "gpt2" and config.vision.name == "openai/clip-vit-base-patch32"
    assert preprocess["vis_processor"]["eval"]["image_size"] == 224
    assert models.get("late_fusion") is LateFusion
    with pytest.raises(ConfigError, match="llm"):
        load_model_config("late_fusion", "default")


def test_pixels_and_their_features_give_the_same(seeing, texts):
    sample, image = texts((5, 5)), torch.randn(2, 3, 16, 16)
    features = seeing.encode_frozen(image)
    expected = seeing.predict({**sample, "vision_features": features})["log_probs"]
    for name in ("pixel_values", "image"):
        torch.testing.assert_close(seeing.predict({**sample, name: image})["log_probs"], expected)
    index = torch.tensor([[0, 1], [1, 0]])
    many = seeing.predict({**sample, "pixel_values": image, "image_index": index}, details=True)
    one = seeing.predict({**sample, "vision_features": features}, details=True)
    for text in (0, 1):
        torch.testing.assert_close(
            many["image_log_probs"][text, 0], one["image_log_probs"][text, 0]
        )
    tokens = seeing.generate(sample["input_ids"], pixel_values=image, max_new_tokens=2)
    assert tokens.shape == (2, 2)


def test_pretrained_language_models_are_read_from_their_folder(make_model, texts, tmp_path):
    model = make_model("gemma3", llm_dtype="bf16")
    model.llm.save_pretrained(tmp_path / "saved")
    config = replace(model.config, llm=str(tmp_path / "saved"), llm_weights="pretrained")
    expected = model.predict(texts())["log_probs"]
    same = LateFusion.from_config(replace(config, llm_dtype=None)).eval()
    assert same.llm.dtype == torch.bfloat16 and not same.llm.training
    torch.testing.assert_close(same.predict(texts())["log_probs"], expected)
    assert LateFusion(replace(config, llm_dtype="fp32")).llm.dtype == torch.float32


def test_each_image_is_encoded_once(seeing, texts, monkeypatch):
    seen = []
    tower = seeing.mm_model.forward
    monkeypatch.setattr(seeing.mm_model, "forward", lambda x: seen.append(len(x)) or tower(x))
    index = torch.tensor([[0, 1, 0], [1, 1, 0]])
    sample = {**texts((5, 5)), "image_index": index, "pixel_values": torch.randn(2, 3, 16, 16)}
    seeing.predict(sample)
    seeing(sample)
    assert seen == [2, 2]


def test_a_text_may_have_fewer_images(make_model, texts, images):
    model, sample = make_model("gpt2"), {**texts(), **images(count=3)}
    index, scores = sample["image_index"], sample["scores"]
    index[0, 1:], index[1] = -1, -1
    found = model.predict(sample)["log_probs"]
    text = model.predict(texts())["log_probs"]
    torch.testing.assert_close(found[1], text[1])
    alone = {**sample, "image_index": index[:, :1], "scores": scores[:, :1]}
    torch.testing.assert_close(model.predict(alone)["log_probs"][0], found[0])
    loss = model({**sample, "scores": None})["loss"]
    assert bool(loss.isfinite())


def test_images_need_an_index_unless_one_per_text(make_model, texts, images):
    model, sample = make_model("gpt2"), {**texts(), **images()}
    sample.pop("image_index")
    with pytest.raises(ConfigError, match="4 images for 3 texts: say with image_index"):
        model.predict(sample)
    with pytest.raises(ConfigError, match="samples must bring vision_features"):
        model.predict({**texts(), "pixel_values": torch.zeros(3, 3, 8, 8)})


def test_no_image_at_all_is_the_text_alone(make_model, texts, images):
    model, sample = make_model("gemma"), {**texts(first=2), **images()}
    sample["image_index"] = torch.zeros(3, 0, dtype=torch.long)
    sample["scores"] = torch.zeros(3, 0)
    torch.testing.assert_close(
        model.predict(sample)["log_probs"], model.predict(texts(first=2))["log_probs"]
    )


def test_fingerprints_tell_towers_and_language_models_apart(seeing, make_model):
    tower, text = seeing.frozen_fingerprint(), seeing.text_fingerprint()
    assert tower == seeing.frozen_fingerprint()
    assert text != make_model("gpt2").text_fingerprint()
    with torch.no_grad():
        seeing.mm_proj.linear1.weight += 1
        seeing.fusion_layer.norm.weight += 1
    assert (seeing.frozen_fingerprint(), seeing.text_fingerprint()) == (tower, text)
    state = seeing.full_state_dict()
    name = next(n for n in state if n.startswith("mm_model.vision_model.") and "patch" in n)
    seeing.load_state({**state, name: state[name] + 1})
    assert seeing.frozen_fingerprint() != tower
    with torch.no_grad():
        seeing.llm.lm_head.weight[0, 0] += 1
    assert seeing.text_fingerprint() != text


def test_where_a_tower_lies_does_not_matter(seeing, tmp_path):
    shutil.copytree(tmp_path / "clip", tmp_path / "elsewhere")
    torch.manual_seed(0)
    vision = VisionConfig(name=str(tmp_path / "elsewhere"), weights="config")
    other = LateFusion(LateFusionConfig(llm=seeing.config.llm, llm_weights="config", vision=vision))
    assert other.frozen_fingerprint() == seeing.frozen_fingerprint()
