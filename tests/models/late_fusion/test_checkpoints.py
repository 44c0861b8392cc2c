"""Every layout of weights is read, a partial one is refused, and all ways of saving read back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavis.common.checkpoint import read_state_dict, save_safetensors
from lavis.common.errors import ConfigError
from lavis.models.late_fusion.checkpoints import export_vlmig_bin
from lavis.models.late_fusion.config import FusionConfig, LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion

SET = Path(__file__).parents[2] / "fixtures" / "vlmig"
FAMILIES = ["gpt2", "gemma", "llama3", "opt", "bert"]
RANDOM = FusionConfig(init="random")
TRAINED = ("mm_proj.", "fusion_layer.")
# token tables and the pooler that LaMI saves along
LAMI = {
    "gpt2": ["fusion_layer.wte.weight"],
    "gemma": ["fusion_layer.embed_tokens.weight"],
    "llama3": ["fusion_layer.embed_tokens.weight"],
    "opt": ["fusion_layer.decoder.embed_tokens.weight"],
    "bert": [
        "fusion_layer.embeddings.word_embeddings.weight",
        "fusion_layer.pooler.dense.weight",
        "fusion_layer.pooler.dense.bias",
    ],
}


def config(family: str, path: Path | None, **fields) -> LateFusionConfig:
    return LateFusionConfig(
        llm=str(SET / family),
        llm_weights="config",
        vision=VisionConfig(name=None, width=32),
        pretrained=str(path) if path else None,
        **fields,
    )


def fused_logits(model: LateFusion, family: str) -> torch.Tensor:
    """Logits of the set's text with its three images, from its hidden states."""
    golden = load_file(SET / family / "golden.safetensors")
    mask = golden["b1.attention_mask"].bool()
    text = model.text_states(golden["b1.input_ids"], mask, golden["b1.text_hidden"])
    model.eval()
    with torch.no_grad():
        fused = model.fuse(text, golden["b1k.vision_features"], torch.arange(3)[None])
    return fused[0][:, mask[0]]


def expected_rows(family: str) -> torch.Tensor:
    golden = load_file(SET / family / "golden.safetensors")
    mask = golden["b1.attention_mask"][0].bool()
    rows = golden["b1k.fusion_hidden"]
    return rows[:, -len(mask) :][:, mask]


def layouts(family: str):
    """Yield name and weights of each published form, from the vLMIG file."""
    full = load_file(SET / family / "model.safetensors")
    small = {name: value for name, value in full.items() if name.startswith(TRAINED)}
    unused = {name: torch.randn(61, 48) for name in LAMI[family]}
    for part, state in (("full", full), ("small", small)):
        for keys, extra in (("vlmig", {}), ("lami", unused)):
            whole = {**state, **extra}
            yield f"{part} {keys}", whole
            yield f"{part} {keys} module", {f"module.{k}": v for k, v in whole.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layout_gives_the_released_values(family, tmp_path):
    for number, (name, state) in enumerate(layouts(family)):
        path = tmp_path / f"{number}.bin"
        torch.save(state, path)
        model = LateFusion.from_config(config(family, path))
        rows = fused_logits(model, family)
        torch.testing.assert_close(
            rows, expected_rows(family), atol=5e-4, rtol=0, msg=f"{family} {name}"
        )


def test_the_ending_may_be_left_out_as_in_released_commands(tmp_path):
    torch.save(load_file(SET / "gpt2" / "model.safetensors"), tmp_path / "ft_0.bin")
    model = LateFusion.from_config(config("gpt2", tmp_path / "ft_0"))
    torch.testing.assert_close(
        fused_logits(model, "gpt2"), expected_rows("gpt2"), atol=5e-4, rtol=0
    )
    with pytest.raises(ValueError, match=r"model\.pretrained: no such file or folder: .*ft_1"):
        config("gpt2", tmp_path / "ft_1")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_trained_weight_is_refused(family, tmp_path):
    state = load_file(SET / family / "model.safetensors")
    lost = max(name for name in state if name.startswith("fusion_layer."))
    save_file({k: v for k, v in state.items() if k != lost}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match="lacks 1 weights the model needs: fusion_layer"):
        LateFusion.from_config(config(family, tmp_path / "part.safetensors"))
    LateFusion.from_config(config(family, tmp_path / "part.safetensors", allow_missing=True))


def test_something_else_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"holds no mm_proj\.linear1\.weight"):
        LateFusion.from_config(config("gpt2", tmp_path / "x.safetensors"))
    wide = str(SET / "gpt2" / "model.safetensors")
    narrow = LateFusion(config("gpt2", None, projector_expansion=1.0, fusion=RANDOM))
    with pytest.raises(ConfigError, match=r"mm_proj\.linear1\.bias has shape \[192\], the"):
        narrow.load_checkpoint(wide)


def test_the_llamas_biases_are_read_and_kept(tmp_path):
    model = LateFusion.from_config(config("llama3", SET / "llama3" / "model.safetensors"))
    bias = model.fusion_layer.layers[0].mlp.down_proj.bias
    assert bias is not None and bias.requires_grad and bool(bias.any())
    assert LateFusion(config("llama3", None)).fusion_layer.layers[0].mlp.down_proj.bias is None
    state = {"model.layers.0.mlp.up_proj.bias": torch.ones(80), **model.trainable_state_dict()}
    with pytest.raises(ConfigError, match=r"is not 0, but the MLP of .* has no biases"):
        model.load_state(state)


def test_the_projectors_width_follows_the_file_else_the_family(tmp_path):
    widths = {"gpt2": 192, "bert": 192, "gemma": 48, "llama3": 48, "opt": 48}
    for family, width in widths.items():
        assert LateFusion(config(family, None)).mm_proj.linear1.out_features == width
    lami = LateFusion(config("gpt2", None, projector_expansion=1.0, fusion=RANDOM))
    save_safetensors(tmp_path / "lami.safetensors", lami.trainable_state_dict())
    model = LateFusion.from_config(config("gpt2", tmp_path / "lami.safetensors"))
    assert model.mm_proj.linear1.out_features == 48


@pytest.mark.parametrize("init", ["random", "identity"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_trained_part_reads_back(family, init, tmp_path):
    model = LateFusion(config(family, None, fusion=FusionConfig(init=init, intermediate_size=24)))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    state = model.trainable_state_dict()
    assert all(name.startswith((*TRAINED, "fusion_input.")) for name in state)
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert all(name.startswith("llm.") or name in state for name in frozen)
    save_safetensors(tmp_path / "small.safetensors", state)
    assert (tmp_path / "small.safetensors").stat().st_size < 300_000
    other = "identity" if init == "random" else "random"  # the file says what it is
    again = LateFusion.from_config(
        config(family, tmp_path / "small.safetensors", fusion=FusionConfig(init=other))
    )
    assert again.trainable_state_dict().keys() == state.keys()
    for name, value in again.trainable_state_dict().items():
        torch.testing.assert_close(value, state[name], msg=name)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in again.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bin_holds_what_released_code_expects(family, tmp_path):
    model = LateFusion.from_config(config(family, SET / family / "model.safetensors"))
    export_vlmig_bin(model, tmp_path / "run_0.bin")
    state = torch.load(tmp_path / "run_0.bin", weights_only=True)
    for name, value in load_file(SET / family / "model.safetensors").items():
        torch.testing.assert_close(state[name], value, msg=name)
    heads = {"cls.predictions.bias"} if family == "bert" else {"lm_head.weight"}
    assert heads <= state.keys()
    if family == "llama3":
        assert not state["model.layers.1.mlp.gate_proj.bias"].any()
    again = LateFusion.from_config(config(family, tmp_path / "run_0.bin"))
    torch.testing.assert_close(fused_logits(again, family), fused_logits(model, family))
    with pytest.raises(ConfigError, match="started as identity"):
        export_vlmig_bin(LateFusion(config(family, None)), tmp_path / "run_1.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["run_0.bin"]


def test_a_hugging_face_folder_reads_back(tmp_path):
    model = LateFusion(config("opt", None, num_images=3, mix="logits"))
    model.save_pretrained(tmp_path / "mine", notes="17 captions")
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "17 captions" in card and "language model's own predictions" in card
    fields = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert fields["arch"] == "late_fusion" and "pretrained" not in fields
    torch.manual_seed(1)
    again = LateFusion.from_pretrained(tmp_path / "mine", num_images=2)
    assert again.config.num_images == 2 and again.config.mix == "logits"
    state = read_state_dict(tmp_path / "mine")
    assert state.keys() == model.trainable_state_dict().keys()
    for name, value in again.trainable_state_dict().items():
        torch.testing.assert_close(value, state[name])
    model.save_pretrained(tmp_path / "whole", save_frozen=True)
    whole = LateFusion.from_pretrained(tmp_path / "whole")
    for name, value in whole.full_state_dict().items():
        torch.testing.assert_close(value, model.full_state_dict()[name])
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="not the config of a late fusion model"):
        LateFusion.from_pretrained(tmp_path / "mine")
    for text, message in (
        ('{"arch"', r"config\.json: cannot be read: "),
        ("[]", "not the config of a late fusion model"),
        (json.dumps({**fields, "mixx": "logits"}), "model.mixx: unknown key; did you mean 'mix'"),
    ):
        (tmp_path / "mine" / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            LateFusion.from_pretrained(tmp_path / "mine")


def test_resuming_loads_what_training_saved():
    model, other = (LateFusion(config("gemma", None)) for _ in range(2))
    with torch.no_grad():
        model.mm_proj.linear1.weight += 1
    other.load_state(model.trainable_state_dict())
    torch.testing.assert_close(other.mm_proj.linear1.weight, model.mm_proj.linear1.weight)


def test_quantising_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="'nf4' and bitsandbytes is not installed"):
        wanted = config("gpt2", None)
        LateFusion(replace(wanted, llm_weights="pretrained", quantize="nf4"))
    with pytest.raises(ValueError, match="needs weights to quantise"):
        config("gpt2", None, quantize="int8")


def test_an_unknown_language_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.llm: cannot read the config of"):
        LateFusion(replace(config("gpt2", None), llm=str(tmp_path)))
