"""Words tied to places: hand-computed masks, places and alignment, and a critic that uses them."""

import math
from dataclasses import replace

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.common.registry import models
from lavis.models.blip2.config import QFormerConfig, VitConfig
from lavis.models.blip2.critic import Blip2Critic
from projects.quickstart.config import GroundedCriticConfig, GroundingConfig
from projects.quickstart.grounded import GroundedCritic
from projects.quickstart.grounding import Grounding, box_coverage

TEXTS = ["[0] is left of [1].", "what is [1]?", "a banana."]


@pytest.fixture
def grounding():
    """Two regions, a 2 x 2 grid, width 4; tokens are looked at as they are."""
    torch.manual_seed(0)
    module = Grounding(4, 4, 4, num_regions=2)
    module.project = torch.nn.Identity()
    module.norm = torch.nn.Identity()
    return module


@pytest.fixture(scope="module")
def critic(tmp_path_factory):
    words = "[PAD] [UNK] [CLS] [SEP] [ ] . ? 0 1 is left of what a banana".split()
    vocab = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab.write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    return GroundedCritic(
        GroundedCriticConfig(
            model_type="tiny",
            load_pretrained=False,
            vit_model="tf_efficientnet_lite0",
            vit=VitConfig(out_indices=(0, 1), grid=4),
            image_size=32,
            num_query_token=2,
            cross_attention_freq=1,
            freeze_word_embeddings=False,
            grounding=GroundingConfig(regions=2),
            qformer=QFormerConfig(
                vocab=str(vocab),
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                initializer_range=0.2,
            ),
        )
    ).eval()


def test_coverage_is_the_share_of_each_cell():
    covered = box_coverage((0.25, 0.0, 0.75, 0.5), 2)  # the inner halves of the two upper cells
    torch.testing.assert_close(covered, torch.tensor([[0.5, 0.5], [0.0, 0.0]]))
    assert box_coverage((0, 0, 1, 1), 3).eq(1).all()


def test_masks_of_boxes_of_absent_words_and_of_unknown_words(grounding):
    boxes = [{"a": [[0.0, 0.0, 0.5, 0.5]], "b": []}, {"b": [[0.6, 0.05, 0.7, 0.95]]}]
    masks, known = grounding.masks(boxes, ["a", "b"])
    assert known.tolist() == [[1, 1], [0, 1]]
    assert masks[0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert masks[1, 1].tolist() == [0, 1, 0, 1]  # thin, it fills no cell: those it fills most


def test_alignment_is_a_scaled_cosine(grounding):
    words = torch.tensor([[2.0, 0, 0, 0]])
    tokens = torch.tensor([[[3.0, 0, 0, 0], [0, 5.0, 0, 0], [-1.0, 0, 0, 0], [1.0, 1.0, 0, 0]]])
    expected = torch.tensor([16.0 - 6, -6.0, -16.0 - 6, 16 / math.sqrt(2) - 6])
    torch.testing.assert_close(grounding.align(words, tokens)[0, 0], expected)


def test_loss_of_a_hand_made_case(grounding):
    words = torch.eye(4)[:2]
    tokens = torch.eye(4)[None]  # token i tokens like word i
    masks = torch.zeros(1, 2, 4)
    masks[0, 0, 0] = 1
    hit, miss = math.log1p(math.exp(-10)), math.log1p(math.exp(-6))
    known = torch.tensor([[1.0, 0.0]])  # word 1, which would be wrong, is not spoken of
    loss = grounding.loss(words, tokens, masks, known)
    assert loss.item() == pytest.approx(hit + 3 * miss, rel=1e-4)


def test_words_are_told_regions_and_places_seen_from_the_first_region(grounding):
    grounding.region.weight.data.copy_(torch.eye(4)[:, :3])  # in 0, in 1, in a mentioned one
    grounding.place.weight.data.zero_()
    numbers = torch.eye(4)[:2]  # 0 tokens like token 0 (upper left), 1 like token 1 (upper right)
    tokens = torch.eye(4)[None]
    words = torch.stack([numbers[0], numbers[1], torch.eye(4)[3]])[None]
    mentions = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])  # the text holds only "1"
    added = grounding(words, tokens, numbers, mentions)[0]
    torch.testing.assert_close(added[0, :3], torch.tensor([1.0, 0.0, 0.0]), atol=3e-3, rtol=0)
    torch.testing.assert_close(added[1, :3], torch.tensor([0.0, 1.0, 1.0]), atol=3e-3, rtol=0)
    grounding.region.weight.data.zero_()
    grounding.place.weight.data.copy_(torch.eye(4))
    places = grounding(words, tokens, numbers, mentions)[0]
    left, right = [-0.5, -0.5, -1.0, 0.0], [0.5, -0.5, 0.0, 0.0]  # from "1", "0" is 1.0 to the left
    torch.testing.assert_close(places[0], torch.tensor(left), atol=3e-3, rtol=0)
    torch.testing.assert_close(places[1], torch.tensor(right), atol=3e-3, rtol=0)


def test_a_critic_scores_texts_alone_as_together(critic):
    torch.manual_seed(1)
    image = torch.randn(2, 3, 32, 32)
    samples = {"image": image, "text_input": TEXTS, "image_index": [1, 0, 1]}
    together = critic.predict(samples)["logits"]
    for text, place, logits in zip(TEXTS, [1, 0, 1], together, strict=True):
        alone = critic.predict({"image": image[place : place + 1], "text_input": [text]})
        torch.testing.assert_close(alone["logits"][0], logits, atol=1e-5, rtol=1e-5)


def test_alignment_is_trained_beside_the_verdict_where_boxes_are_known(critic):
    samples = {
        "image": torch.randn(1, 3, 32, 32),
        "text_input": TEXTS[:1],
        "label": torch.tensor([1]),
    }
    assert "loss_words" not in critic(samples)
    boxes = {"banana": [[0.0, 0.0, 0.5, 0.5]], "0": []}
    losses = critic({**samples, "word_boxes": [boxes]})
    total = losses["loss_label"] + 0.1 * losses["loss_words"]
    torch.testing.assert_close(losses["loss"], total, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="no token 'zebra'"):
        critic({**samples, "word_boxes": [{"zebra": []}]})


def test_frozen_grounding_keeps_what_words_point_at(critic):
    config = replace(critic.config, grounding=GroundingConfig(regions=2, freeze=True))
    trained = {name for name, w in GroundedCritic(config).named_parameters() if w.requires_grad}
    assert not any(name.startswith(("grounding.", "ln_vision.")) for name in trained)
    assert "query_tokens" in trained and "grounding.project.weight" in dict(
        critic.named_parameters()
    )


def test_grounding_needs_a_square_grid_of_maps():
    with pytest.raises(ConfigError, match="square grid of tokens, not 5"):
        Grounding(4, 4, 5, num_regions=1)
    with pytest.raises(ValueError, match=r"model\.vit\.out_indices"):
        GroundedCriticConfig(model_type="x", load_pretrained=False, grounding=GroundingConfig())


def test_the_critics_name_stands_for_the_grounded_one_where_the_module_is_imported(critic):
    assert models.get("blip2_critic") is GroundedCritic
    assert models.config_class("blip2_critic") is GroundedCriticConfig
    assert list(models.defaults("blip2")) == ["pretrain", "pretrain_vitL", "coco", "quickstart"]
    plain = GroundedCritic(replace(critic.config, grounding=None)).state_dict()
    bare = Blip2Critic(replace(critic.config, grounding=None)).state_dict()
    assert list(plain) == list(bare)
