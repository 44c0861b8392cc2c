"""Next words of a model that fills masks: one [MASK] behind each prompt, with images too."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from projects.checks.golden import preset

ROOT = Path(__file__).resolve().parents[3]
VOCABULARY = ROOT / "lavis" / "configs" / "tokenizers" / "bert-base-uncased" / "vocab.txt"
TOWER = ROOT / "tests" / "fixtures" / "vlmig" / "eval" / "vision_config.json"
QUESTIONS = [("What is the color of a tench?", "green"), ("What color is milk?", "white")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    BertForMaskedLM(config).save_pretrained(root / "llm")
    BertTokenizerFast(vocab=str(VOCABULARY)).save_pretrained(root / "llm")
    (root / "tower").mkdir()
    (root / "tower" / "config.json").write_text(TOWER.read_text())
    lines = "".join(f"x,{question},{answer}\n" for question, answer in QUESTIONS)
    (root / "data").mkdir()
    (root / "data" / "color.csv").write_text(f"category,question,answer\n{lines}")
    return root


def test_candidates_are_read_at_the_mask(folder):
    vision = VisionConfig(name=str(folder / "tower"), weights="config")
    section = LateFusionConfig(llm=str(folder / "llm"), vision=vision, weights="mean")
    model = LateFusion.from_config(section).eval()
    torch.nn.init.normal_(model.fusion_layer.encoder.layer[0].output.dense.weight)
    dataset = preset.make_dataset("imagenetvc", folder / "data", subsets=["color"])
    pool = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images = preset.PresetImages(pool, lambda question: [([0, 2], [0.5, 0.5])])
    config = preset.make_config(folder / "llm", folder, num_images=2)
    task = preset.make_task(config, images)
    answers = preset.answer(task, model, dataset)
    tokenizer = task.texts.tokenizer
    assert tokenizer.mask_token_id is not None
    colors = dataset.question(0).options
    for index, (question, gold) in enumerate(QUESTIONS):
        ids = torch.tensor([tokenizer(f"{question} Answer: [MASK]").input_ids])
        at = (ids == tokenizer.mask_token_id).nonzero()[:, 1][None]
        given_images = {"pixel_values": pool[[0, 2]], "image_index": torch.tensor([[0, 1]])}
        for column, more in (("text", {}), ("pictures", given_images)):
            log_probs = model.predict({"input_ids": ids, "positions": at, **more})["log_probs"]
            wanted = {c: log_probs[0, 0, tokenizer.convert_tokens_to_ids(c)].item() for c in colors}
            row = answers.rows[index]
            best = max(wanted, key=lambda color: wanted[color])
            assert row["predicted"][column]["first_token"][1] == best
            assert row["marks"][column]["first_token"][1] == int(best == gold)
            top, _ = row["values"][column]["first_token"][1]
            assert math.isclose(top, wanted[best], abs_tol=1e-5)
    values = answers.rows[0]["values"]
    assert values["text"]["first_token"] != values["pictures"]["first_token"]
