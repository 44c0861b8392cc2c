"""What a model folder may lack or hold, and the one sentence that says so before anything runs."""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from lavis.common.errors import ConfigError
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion

TOWER = VisionConfig(name=None, width=12)


@pytest.fixture
def folder(llm_folder, tmp_path):
    """A folder with config and weights of a tiny Llama."""
    config = AutoConfig.from_pretrained(llm_folder("llama"))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def refusal(folder, **fields):
    with pytest.raises(ConfigError) as caught:
        LateFusion.from_config(LateFusionConfig(llm=str(folder), vision=TOWER, **fields))
    text = str(caught.value)
    assert "\n" not in text and text.startswith("model.llm: ")
    return text


def test_half_a_weights_file(folder):
    path = folder / "model.safetensors"
    for kept in (path.stat().st_size // 2, 5, 0):
        path.write_bytes(path.read_bytes()[:kept])
        assert "cannot build" in refusal(folder)


def test_a_quantized_checkpoint_without_its_package(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    path.write_text(json.dumps(config))
    assert "cannot build" in refusal(folder)


def test_no_folder_no_config_and_an_unknown_family(folder):
    assert "cannot read the config" in refusal(folder / "missing")
    (folder / "config.json").write_text("{")
    assert "cannot read the config" in refusal(folder)
    (folder / "config.json").write_text('{"model_type": "fictional"}')
    assert "fictional" in refusal(folder)


def test_patches_that_fill_all_positions(llm_folder, tmp_path):
    CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=64, patch_size=4,
    ).save_pretrained(tmp_path)  # fmt: skip
    vision = VisionConfig(name=str(tmp_path), weights="config")
    section = LateFusionConfig(llm=str(llm_folder("gpt2")), llm_weights="config", vision=vision)
    model = LateFusion.from_config(section)
    with pytest.raises(ConfigError, match=r"64 pixels becomes 256 patches, and this 'gpt2' has 64"):
        model.longest_text(64)
    assert model.longest_text(16) == 64 - 16


def test_every_value_of_a_weight_is_in_the_fingerprint(make_model):
    model = make_model("llama")
    before = model.text_fingerprint()
    weight = model.llm.get_input_embeddings().weight
    for place in (1, weight.numel() // 2 + 1, weight.numel() - 1):
        with torch.no_grad():
            weight.view(-1)[place] += 1
        assert model.text_fingerprint() != before
        before = model.text_fingerprint()
    assert model.text_fingerprint() == before


def test_a_language_model_whose_files_lack_weights_is_refused(tmp_path):
    """The library would draw the missing layer at random."""
    sizes = {"vocab_size": 61, "n_embd": 16, "n_head": 2, "n_positions": 32}
    for layers in (2, 3):
        GPT2LMHeadModel(GPT2Config(n_layer=2, **sizes)).save_pretrained(tmp_path)
        GPT2Config(n_layer=layers, **sizes).save_pretrained(tmp_path)
        section = LateFusionConfig(llm=str(tmp_path), vision=VisionConfig(name=None, width=4))
        if layers == 2:
            LateFusion.from_config(section)
            continue
        with pytest.raises(ConfigError, match=r"lack weights .* transformer\.h\.2\..* and 9 more"):
            LateFusion.from_config(section)
