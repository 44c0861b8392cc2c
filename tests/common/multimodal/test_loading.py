"""Loading by name or folder: what comes back, and refusals in sentences."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_vlm import make_vlm
from transformers import AutoConfig, BertConfig

from lavis.common.errors import ConfigError
from lavis.common.multimodal import load_vlm
from lavis.common.multimodal.loading import pick_dtype

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return make_vlm("qwen3_vl", tmp_path_factory.mktemp("vlm") / "qwen3_vl")


@pytest.fixture
def copy(qwen, tmp_path):
    return Path(shutil.copytree(qwen, tmp_path / "copy"))


def load(folder, **options):
    return load_vlm(str(folder), device=CPU, refusal="model.name: cannot load 'x'", **options)


def test_a_folder_gives_a_processor_and_a_model_in_evaluation_mode(qwen):
    processor, model = load(qwen)
    assert processor.image_processor and processor.tokenizer
    assert not model.training and model.dtype == torch.float32
    assert load(qwen, dtype="bf16")[1].dtype == torch.bfloat16


def test_auto_is_float32_on_a_cpu_and_half_on_a_gpu(qwen):
    config, cuda = AutoConfig.from_pretrained(qwen), torch.device("cuda")
    assert pick_dtype(config, "auto", CPU) == torch.float32
    assert pick_dtype(config, "auto", cuda) == torch.bfloat16
    config.dtype = torch.float16
    assert pick_dtype(config, "auto", cuda) == torch.float16
    assert pick_dtype(config, "fp32", cuda) == torch.float32


def test_a_model_that_insists_on_reasoning_is_refused(copy):
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "<think>\n")
    with pytest.raises(ConfigError, match=r"opens <think> before every answer .* Instruct"):
        load(copy)


def test_refused_families_and_models_of_texts_say_why(tmp_path):
    AutoConfig.for_model("llama4").save_pretrained(tmp_path / "llama4")
    with pytest.raises(ConfigError, match=r"cannot load .x.: transformers .* raises on every"):
        load(tmp_path / "llama4")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match="a 'bert' writes no text about images"):
        load(tmp_path / "bert")


def test_code_of_the_folder_is_never_run(copy):
    ran = copy.parent / "ran"
    (copy / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = json.loads((copy / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForImageTextToText": "modeling_own.Own"}}
    config |= {"architectures": ["Own"]}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"needs code of its own .*never run"):
        load(copy)
    assert not ran.exists()


def test_only_safetensors_are_read_and_all_weights_must_be_there(copy):
    weights = copy / "model.safetensors"
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    name = next(name for name in state if "layers.1" in name)
    save_file({k: v for k, v in state.items() if k != name}, weights, {"format": "pt"})
    with pytest.raises(ConfigError, match="lack weights that its config asks for"):
        load(copy)
    torch.save(state, copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ConfigError, match="safetensors"):
        load(copy)
