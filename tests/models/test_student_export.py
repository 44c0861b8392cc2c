"""A trained run exported: weights in both forms, and a card that says where they come from."""

import json
import shutil

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import Blip2ForImageTextRetrieval

from lavis.common.errors import ConfigError
from lavis.models.blip2.config import Stage1Config
from lavis.models.blip2.stage1 import Blip2Stage1
from lavis.models.student_export import StudentFacts, export_run

SECTION = {
    "arch": "blip2", "model_type": "pretrain", "load_pretrained": False, "image_size": 28,
    "num_query_token": 4, "embed_dim": 16, "vit": {"embed_dim": 32, "depth": 1, "num_heads": 4},
    "qformer": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder, and its model."""
    torch.manual_seed(0)
    model = Blip2Stage1(Stage1Config(**SECTION)).eval()
    folder = tmp_path_factory.mktemp("student")
    best = folder / "checkpoint_best"
    best.mkdir()
    save_file({k: v.contiguous() for k, v in model.full_state_dict().items()},
              best / "model.safetensors")  # fmt: skip
    state = {"iteration": 1200, "best": {"metric": 31.25, "at": 3}}
    (best / "trainer_state.json").write_text(json.dumps(state))
    (folder / "environment.json").write_text(json.dumps({"commit": "abc123"}))
    node = {
        "build_info": {"annotations": {"train": {"storage": ["/data/lck_1M.jsonl"]}}},
        "text_processor": {"eval": {"name": "blip_unified_vqa", "prompt": "question: "}},
    }
    tree = {"model": SECTION, "datasets": {"unified_vqa_chatgpt_contrastive": node}}
    OmegaConf.save(OmegaConf.create(tree), folder / "config.yaml")
    return folder, model


def test_a_folder_of_transformers_and_its_card(run, tmp_path):
    folder, model = run
    facts = StudentFacts(
        name="student", license="bsd-3-clause", critic="critic_ft v2", threshold=0.8,
        data_license="cc-by-4.0", metrics={"Sherlock": "29.9"},
    )  # fmt: skip
    export_run(folder, tmp_path, facts)
    theirs = Blip2ForImageTextRetrieval.from_pretrained(tmp_path).eval()
    image, texts = torch.randn(2, 3, 28, 28), ["a dog", "two red cats"]
    ids, mask = model.tokenize(texts)
    images = torch.full((2, 4), theirs.config.image_token_index)
    with torch.no_grad():
        found = theirs(
            pixel_values=image,
            input_ids=torch.cat([images, ids], dim=1),
            attention_mask=torch.cat([torch.ones(2, 4, dtype=torch.long), mask], dim=1),
            use_image_text_matching_head=True,
        ).logits_per_image[:, 1]
    expected = model.score({"image": image, "text_input": texts})["itm"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    text = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "bsd-3-clause"
    for line in (
        "| Trained on | `lck_1M.jsonl` |",
        "| Licence of the data | cc-by-4.0 |",
        "| Critic | critic_ft v2 |",
        "| Critic threshold | 0.8 |",
        "| Iterations | 1200 |",
        "| Best validation | 31.2500 |",
        "| Code | commit abc123 |",
        "| Sherlock | 29.9 |",
        'text="question: what is [0] doing?',
    ):
        assert line in text, line


def test_weights_under_lavis_names(run, tmp_path):
    folder, model = run
    for whole in (False, True):
        export_run(folder, tmp_path, StudentFacts(name="x"), form="lavis", whole=whole)
        weights = load_file(tmp_path / "model.safetensors")
        expected = model.full_state_dict() if whole else model.trainable_state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in weights.items())
        assert ("visual_encoder.cls_token" in weights) == whole
    assert "Qformer.bert.embeddings.word_embeddings.weight" in weights


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.yaml; name the output folder"):
        export_run(tmp_path, tmp_path / "x", StudentFacts(name="x"))


def test_a_config_that_cannot_be_used_is_named_with_its_file(run, tmp_path):
    folder, _ = run
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("model_type: pretrain", "model_type: absent"))
    with pytest.raises(ConfigError, match=r"run/config\.yaml, model: 'absent' is not a model_type"):
        export_run(copy, tmp_path / "x", StudentFacts(name="x"))
