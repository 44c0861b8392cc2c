"""A tuned model as a folder of plain transformers: the same logits, and where answers end."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from lavis.models.student_export import StudentFacts, export_run
from lavis.models.vlm.branches import TokenRow
from lavis.models.vlm.config import VlmStudentConfig
from lavis.models.vlm.export import export_vlm
from lavis.models.vlm.student import VlmStudent


def tuned(folder, **options):
    torch.manual_seed(0)
    model = VlmStudent.from_config(VlmStudentConfig(name=folder, **options)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    return model


def first_row(model, views):
    encoded = model.encoder.encode(views[0], [model.encoder.write("what is [0]?", 1)])
    return TokenRow(encoded, 0, 0)


@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma3", "smolvlm", "florence2"])
def test_plain_transformers_gives_the_same_logits(vlm_folder, views, tmp_path, kind):
    model = tuned(vlm_folder(kind))
    read = first_row(model, views)
    inputs = model.reader.inputs([read])
    with torch.no_grad():
        expected = model.training_logits([read])[0][-1]
    untuned = tuned(vlm_folder(kind), lora=None).training_logits([read])[0][-1]
    assert (expected - untuned).abs().max() > 1e-2
    stops = model.encoder.stops
    export_vlm(model, tmp_path)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    if plain.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[2, 1]])
    with torch.no_grad():
        logits = plain(**inputs).logits[0, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert set(stops) <= set(plain.generation_config.eos_token_id)
    AutoProcessor.from_pretrained(tmp_path)


def test_weights_keep_the_type_of_their_files(vlm_folder, tmp_path):
    half = tmp_path / "half"
    AutoModelForImageTextToText.from_pretrained(vlm_folder("qwen3_vl")).bfloat16().save_pretrained(
        half
    )
    AutoProcessor.from_pretrained(vlm_folder("qwen3_vl")).save_pretrained(half)
    export_vlm(tuned(str(half)), tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


def test_a_runs_folder_is_exported_with_a_card(vlm_folder, views, tmp_path):
    model = tuned(vlm_folder("qwen3_vl"))
    run, out = tmp_path / "run", tmp_path / "out"
    (run / "checkpoint_best").mkdir(parents=True)
    save_file(model.trainable_state_dict(), run / "checkpoint_best" / "model.safetensors")
    (run / "checkpoint_best" / "trainer_state.json").write_text(json.dumps({"iteration": 7}))
    section = {
        "arch": "vlm_student", "model_type": "default", "name": vlm_folder("qwen3_vl"),
        "quantization": "nf4",  # trained on a GPU; what is merged into are the weights themselves
    }  # fmt: skip
    shown = {"eval": {"name": "vlm_image", "shows": "marks"}}
    build = {"annotations": {"train": {"storage": ["/data/lck.jsonl"]}}}
    node = {"vis_processor": shown, "build_info": build}
    tree = {"model": section, "datasets": {"unified_vqa_chatgpt": node}}
    OmegaConf.save(OmegaConf.create(tree), run / "config.yaml")
    export_run(run, out, StudentFacts(name="tuned", metrics={"VCR": "61.0"}))
    plain = AutoModelForImageTextToText.from_pretrained(out).eval()
    read = first_row(model, views)
    with torch.no_grad():
        logits = plain(**model.reader.inputs([read])).logits[0, -1]
        expected = model.training_logits([read])[0][-1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    card = (out / "README.md").read_text()
    assert "# tuned" in card and "`shows: marks`" in card and "`lck.jsonl`" in card
    assert "| Iterations | 7 |" in card and "| VCR | 61.0 |" in card
