"""Which weights a training step reaches, as each config says of itself: processes rely on it."""

import dataclasses

import pytest
import torch

from lavis.common.registry import models
from lavis.models.blip2.config import QFormerConfig, VitConfig
from projects.quickstart.config import GroundingConfig

BOXES = [{"dog": [[0.0, 0.0, 0.5, 0.5]]}, {"near": []}]
CONFIGS = {
    "critic": ("blip2_critic", {}),
    "critic, tower trained": ("blip2_critic", {"freeze_vit": False}),
    "critic, words trained": ("blip2_critic", {"freeze_word_embeddings": False}),
    "critic, places": ("blip2_critic", {"grounding": {}}),
    "critic, places frozen": ("blip2_critic", {"grounding": {"freeze": True}}),
    "critic, places only": ("blip2_critic", {"grounding": {"alignment_only": True}}),
    "critic, places, maps trained": ("blip2_critic", {"grounding": {}, "freeze_vit": False}),
    "student, places, maps trained": ("blip2", {"grounding": {}, "freeze_vit": False}),
    "student": ("blip2", {}),
    "student, tower trained": ("blip2", {"freeze_vit": False}),
    "student, places frozen": ("blip2", {"grounding": {"freeze": True}}),
}
PART = (
    "critic, places only",
    "critic, places, maps trained",
    "student, places, maps trained",
)


def build(arch, changes, folder):
    words = "[PAD] [UNK] [CLS] [SEP] [DEC] [ ] . ? 0 1 2 3 4 5 6 7 8 9 what is the dog near".split()
    vocab = folder / "vocab.txt"
    vocab.write_text("\n".join(words) + "\n")
    changes = dict(changes)
    vit = VitConfig(embed_dim=32, depth=2, num_heads=4)
    if "grounding" in changes:
        changes["grounding"] = GroundingConfig(regions=2, **changes["grounding"])
        changes["vit_model"], vit = "tf_efficientnet_lite0", VitConfig(out_indices=(0, 1), grid=4)
    qformer = QFormerConfig(
        vocab=str(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    sizes = {"image_size": 32 if "grounding" in changes else 28, "num_query_token": 4}
    cls = models.config_class(arch)
    known = {field.name for field in dataclasses.fields(cls)}
    given = {"model_type": "tiny", "load_pretrained": False, "vit": vit, "qformer": qformer}
    given |= {**sizes, "embed_dim": 16, "max_txt_len": 16, **changes}
    torch.manual_seed(0)
    return models.get(arch)(cls(**{k: v for k, v in given.items() if k in known})).train()


def batch(model, *, boxes):
    size = model.config.image_size
    samples = {
        "image": torch.randn(2, 3, size, size),
        "text_input": ["what is the dog near ?", "the dog [ 0 ] ."],
        "image_index": [0, 1],
        "label": torch.tensor([0, 1]),
    }
    return {**samples, "word_boxes": BOXES} if boxes else samples


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_whether_each_step_reaches_every_weight(name, tmp_path):
    arch, changes = CONFIGS[name]
    model = build(arch, changes, tmp_path)
    for boxes in (True, False) if "places" in name and name not in PART else ("places" in name,):
        model.zero_grad(set_to_none=True)
        model(batch(model, boxes=boxes))["loss"].backward()
        trained = {n for n, weight in model.named_parameters() if weight.requires_grad}
        reached = {n for n, weight in model.named_parameters() if weight.grad is not None}
        assert reached <= trained
        assert model.uses_every_weight == (name not in PART)
        if model.uses_every_weight:
            assert trained == reached, sorted(trained - reached)
        else:
            assert trained - reached, "it could say that it uses every weight"


def test_a_batch_whose_records_tell_of_no_word_trains_nothing(tmp_path):
    model = build("blip2_critic", {"grounding": {"alignment_only": True}}, tmp_path)
    loss = model({**batch(model, boxes=False), "word_boxes": [{}, {}]})["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(w.grad is None or not w.grad.any() for w in model.parameters())
