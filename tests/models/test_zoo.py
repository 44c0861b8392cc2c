"""Models by name, as LAVIS users know them."""

import subprocess
import sys

import pytest
import torch

from lavis.common.checkpoint import save_safetensors
from lavis.common.errors import ConfigError
from lavis.models import load_model, load_model_and_preprocess, model_zoo


def test_importing_the_zoo_loads_no_torch():
    code = "import sys, lavis.models; print(len(lavis.models.model_zoo), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    types, has_torch = done.stdout.split()
    assert int(types) >= 11 and has_torch == "False"


def test_zoo_lists_architectures_and_types():
    assert ("blip2_critic", "pretrain") in list(model_zoo)
    assert "blip2_critic" in str(model_zoo) and "pretrain_vitL" in str(model_zoo)


def test_load_model_takes_a_checkpoint(golden, make_critic, tiny_sizes, tmp_path):
    path = tmp_path / "all.safetensors"
    save_safetensors(path, make_critic().full_state_dict())
    model = load_model(
        "blip2_critic", "pretrain", is_eval=True, checkpoint=str(path), overrides=tiny_sizes
    )
    assert not model.training and model.device == torch.device("cpu")
    outputs = model.predict({"image": golden.inputs["image"], "text_input": golden.texts})
    torch.testing.assert_close(outputs["logits"], golden.outputs["itm_logits"], rtol=0, atol=1e-4)


def test_load_model_and_preprocess_gives_processors(tiny_sizes):
    model, images, texts = load_model_and_preprocess(
        "blip2_critic", "pretrain", overrides=tiny_sizes
    )
    assert model.training
    assert set(images) == set(texts) == {"train", "eval"}
    assert texts["eval"]("A photo: the man (left) runs!\n") == "a photo the man left runs"


def test_unknown_names_list_near_ones():
    with pytest.raises(ConfigError, match="unknown model 'blip2_critc'; did you mean"):
        load_model("blip2_critc", "pretrain")
    with pytest.raises(ConfigError, match=r"'pretrained' is not a model_type .*'pretrain'"):
        load_model("blip2_critic", "pretrained")
