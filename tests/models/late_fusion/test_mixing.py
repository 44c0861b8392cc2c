"""Ways of mixing: hand-computed values, distributions, absent images."""

import pytest
import torch

from lavis.common.errors import ConfigError
from lavis.models.late_fusion import language
from lavis.models.late_fusion.config import LateFusionConfig
from lavis.models.late_fusion.mixing import (
    Mixing,
    confidence_weights,
    image_weights,
    mix_logits,
    mix_probs,
)


def test_logits_are_weighed_against_the_text():
    image_logits = torch.tensor([[2.0, 0.0], [0.0, 4.0]])  # K = 2, V = 2
    shares = torch.tensor([0.5, 0.25]) / 2
    mixed = mix_logits(image_logits, torch.tensor([1.0, 0.0]), shares)
    # (0.5 [2, 0] + 0.5 [1, 0] + 0.25 [0, 4] + 0.75 [1, 0]) / 2
    torch.testing.assert_close(mixed, torch.tensor([1.125, 0.5]))


def test_probabilities_are_weighed_against_the_text():
    images = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    shares = torch.tensor([0.5, 0.25]) / 2
    mixed = mix_probs(images.log(), torch.tensor([0.6, 0.4]).log(), shares).exp()
    # (0.5 .9 + 0.5 .6 + 0.25 .2 + 0.75 .6) / 2 = 0.625
    torch.testing.assert_close(mixed, torch.tensor([0.625, 0.375]))


@pytest.mark.parametrize("weights", ["clip", "clip_relative", "mean", "entropy", "max_confidence"])
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_what_is_mixed_is_a_distribution(weights, kind):
    draw = torch.Generator().manual_seed(0)
    images = 4 * torch.randn(5, 3, 11, generator=draw)
    text = 4 * torch.randn(5, 11, generator=draw)
    scores = 2 * torch.rand(5, 3, generator=draw)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]]).bool()
    way = Mixing(kind, weights)
    shares, present = way.mixing_weights(scores, present)
    mixed = way.mix(image_logits=images, text_logits=text, weights=shares, present=present)
    torch.testing.assert_close(mixed.exp().sum(dim=-1), torch.ones(5))
    assert bool((mixed <= 1e-6).all())
    torch.testing.assert_close(mixed[2], text[2].log_softmax(dim=-1))  # it has no image


def test_weights_of_scores():
    scores, present = torch.tensor([[0.3, 0.15, 0.9]]), torch.tensor([[True, True, False]])
    found = image_weights("clip", scores, present, multiplier=2)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.3, 0.0]]))
    found = image_weights("clip", scores, present, multiplier=4)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.6, 0.0]]))
    found = image_weights("clip", scores, present, multiplier=4, clamp=False)
    torch.testing.assert_close(found, torch.tensor([[1.2, 0.6, 0.0]]))
    found = image_weights("clip_relative", scores, present)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.5, 0.0]]))
    found = image_weights("mean", None, present, multiplier=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0.0]]))
    shares, _ = Mixing(weights="clip", multiplier=2).mixing_weights(scores, present)
    torch.testing.assert_close(shares, torch.tensor([[0.3, 0.15, 0.0]]))  # K is 2 here
    shares, left = Mixing(weights="clip", num_images=1).mixing_weights(scores, present)
    torch.testing.assert_close(shares, torch.tensor([[0.3, 0.0, 0.0]]))
    assert left.tolist() == [[True, False, False]] and present.sum() == 2


def test_shares_of_certainty():
    sure = torch.tensor([0.5, 0.5, 0.0])  # H = ln 2
    unsure = torch.tensor([0.25, 0.25, 0.5])  # H = 1.5 ln 2
    log_probs = torch.stack([unsure, sure, sure]).log()
    present = torch.tensor([True, True, False])
    found = confidence_weights("max_confidence", log_probs, present)
    assert found.tolist() == [0, 1, 0]
    found = confidence_weights("entropy", log_probs, present)
    expected = 1 / (1 + 2**0.5)  # e^-H is 2^-1.5 and 2^-1
    torch.testing.assert_close(found, torch.tensor([expected, 1 - expected, 0.0]))


def test_every_option_of_the_config_reaches_the_mixing():
    config = LateFusionConfig(
        llm="gpt2", mix="logits", weights="mean", weight_multiplier=0.5, clamp_weights=False
    )
    assert Mixing.of(config) == Mixing("logits", "mean", 0.5, False)
    assert Mixing.of(LateFusionConfig(llm="gpt2")).num_images is None


def test_shares_of_several_texts():
    scores = torch.tensor([[0.8, 0.4], [0.2, 0.1], [-0.5, 0.5]])
    present = torch.tensor([[True, True], [True, True], [True, False]])

    def shares(**options):
        return Mixing(**options).mixing_weights(scores, present)[0]

    # the best image is each text's own; K is 2, 2 and 1
    relative = torch.tensor([[0.5, 0.25], [0.5, 0.25], [0.0, 0.0]])
    torch.testing.assert_close(shares(weights="clip_relative"), relative)
    half = torch.tensor([[0.25, 0.25], [0.25, 0.25], [0.5, 0.0]])
    torch.testing.assert_close(shares(weights="mean", multiplier=0.5), half)
    clamped = torch.tensor([[0.5, 0.4], [0.2, 0.1], [0.0, 0.0]])
    torch.testing.assert_close(shares(weights="clip", multiplier=2.0), clamped)
    free = torch.tensor([[0.8, 0.4], [0.2, 0.1], [-1.0, 0.0]])
    torch.testing.assert_close(shares(weights="clip", multiplier=2.0, clamp=False), free)


@pytest.mark.parametrize("weights", ["clip", "mean", "entropy"])
def test_without_images_no_share_is_left(weights):
    present = torch.ones(2, 3, dtype=torch.bool)
    shares, left = Mixing(weights=weights, num_images=0).mixing_weights(None, present)
    assert shares.tolist() == [[0.0] * 3] * 2 and not left.any() and present.all()
    shares, left = Mixing(weights=weights).mixing_weights(None, present[:, :0])
    assert shares.shape == left.shape == (2, 0)


@pytest.mark.parametrize("options", [{}, {"weights": "mean"}, {"num_images": 0}])
def test_shares_lie_where_the_images_are(options):
    """The device `meta` stands for a GPU: it meets no tensor of the CPU."""
    present = torch.ones(2, 3, dtype=torch.bool, device="meta")
    shares, left = Mixing(**options).mixing_weights(torch.ones(2, 3), present)
    assert shares.device.type == left.device.type == "meta"


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_certainty_decides_at_each_position(kind):
    sure, unsure = [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]
    images = torch.tensor([[[sure, unsure], [unsure, sure]]]).clamp(min=1e-9).log()
    images, text = images + 3.0, torch.zeros(1, 2, 3)  # (B, R, K, V): logits, not normalised

    def mixed(weights):
        return Mixing(kind, weights).mix(
            image_logits=images,
            text_logits=text,
            weights=None,
            present=torch.ones(1, 2, 2, dtype=torch.bool),
        )

    one = torch.tensor(sure).clamp(min=1e-9)
    torch.testing.assert_close(mixed("max_confidence").exp()[0], torch.stack([one, one]))
    share = 1 / (1 + 2**-0.5)  # of the sure one: e^-H is 1/2 and 2^-1.5
    other = torch.tensor(unsure)
    if kind == "probs":
        expected = share * one + (1 - share) * other
    else:
        expected = one**share * other ** (1 - share)
        expected = expected / expected.sum()
    torch.testing.assert_close(mixed("entropy").exp()[0], torch.stack([expected, expected]))


def test_given_shares_mix_at_each_position():
    images = torch.tensor([[[[2.0, 0.0]], [[0.0, 2.0]]]])  # (B = 1, R = 2, K = 1, V = 2)
    found = Mixing("probs", "clip").mix(
        image_logits=images,
        text_logits=torch.zeros(1, 2, 2),
        weights=torch.full((1, 2, 1), 0.5),
        present=torch.ones(1, 2, 1, dtype=torch.bool),
    )
    first = 0.5 / (1 + torch.tensor(-2.0).exp()) + 0.25
    expected = torch.tensor([[[first, 1 - first], [1 - first, first]]])
    torch.testing.assert_close(found.exp(), expected)


def test_weights_by_score_need_scores(make_model, texts, images):
    sample = {**texts(), **images()}
    sample.pop("scores")
    with pytest.raises(ConfigError, match=r"samples hold no 'scores'; give them, or set"):
        make_model("llama").predict(sample)


def test_probabilities_need_clamped_weights():
    with pytest.raises(ValueError, match="weights above 1 would give negative probabilities"):
        LateFusionConfig(llm="gpt2", mix="probs", clamp_weights=False)


def test_columns_of_a_table_share_one_pass(make_model, texts, images):
    model, sample = make_model("gemma2"), {**texts(), **images(count=3)}
    ways = {
        "text": Mixing(num_images=0),
        "single": Mixing(num_images=1),
        "all": Mixing(),
        "released": Mixing("logits", clamp=False),
        "sure": Mixing("probs", "max_confidence"),
    }
    found = model.predict(sample, ways, details=True)
    fused, text = found["image_log_probs"], found["text_log_probs"]
    torch.testing.assert_close(found["log_probs.text"], text)
    assert fused.shape == (3, 3, 1, 61)
    first = sample["scores"][:, :1, None] * fused[:, 0].exp()
    expected = first + (1 - sample["scores"][:, :1, None]) * text.exp()
    torch.testing.assert_close(found["log_probs.single"].exp(), expected)
    for name, way in ways.items():
        alone = model.predict(sample, {"": way})["log_probs"]
        torch.testing.assert_close(alone, found[f"log_probs.{name}"])


@pytest.mark.parametrize("kind", ["llama", "gemma2", "bert"])
def test_logits_of_mixed_rows_are_mixed_logits(make_model, texts, images, kind):
    """A linear head is run on mixed hidden states; a capped one must not be."""
    model, sample = make_model(kind), {**texts(), **images()}
    text = model.encode_text(sample["input_ids"], sample["attention_mask"])
    last = text.last()[:, None]
    fused = model.fuse(text, sample["vision_features"], sample["image_index"], last)
    alone = model.logits(text.hidden[torch.arange(3), last[:, 0]])
    expected = mix_logits(model.logits(fused[:, :, 0]), alone, sample["scores"] / 2)
    found = model.predict(sample, {"": Mixing("logits")})["log_probs"][:, 0]
    torch.testing.assert_close(found, expected.log_softmax(dim=-1), atol=1e-5, rtol=1e-4)


def test_only_asked_tokens_come_back_normalised_over_all(make_model, texts, images):
    model, sample = make_model("gpt2"), {**texts(), **images()}
    sample["positions"] = torch.tensor([[0, 8], [2, 5], [1, 2]])
    whole = model.predict(sample)["log_probs"]
    common = torch.tensor([5, 7, 7])
    each = torch.tensor([[1], [2], [3]])
    found = model.predict({**sample, "token_ids": common})["log_probs"]
    torch.testing.assert_close(found, whole[..., common])
    found = model.predict({**sample, "token_ids": each})["log_probs"]
    torch.testing.assert_close(found[1], whole[1][:, [2]])
    one = model.predict({**sample, "token_ids": each[:, None].expand(-1, 2, -1)})["log_probs"]
    torch.testing.assert_close(one, found)
    details = model.predict({**sample, "token_ids": common}, details=True)
    assert details["image_log_probs"].shape == (3, 2, 2, 3)


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
def test_slices_of_the_vocabulary_give_what_the_whole_gives(
    make_model, texts, images, kind, monkeypatch
):
    model, sample = make_model(kind), {**texts(), **images()}
    ways = {
        "probs": Mixing("probs"),
        "logits": Mixing("logits"),
        "none": Mixing("logits", num_images=0),
        "sure": Mixing("probs", weights="entropy"),
    }
    sample["positions"] = torch.tensor([[0, 8], [2, 5], [1, 2]])
    whole = model.predict(sample, ways, details=True)
    monkeypatch.setattr(language, "SLICE_VALUES", 40)
    monkeypatch.setattr(language, "SLICE_ROWS", 4)
    ids = torch.tensor([3, 0, 11])
    for chosen in (ways, {"logits": ways["logits"]}):
        found = model.predict({**sample, "token_ids": ids}, chosen, details=len(chosen) > 1)
        for name, log_probs in found.items():
            torch.testing.assert_close(log_probs, whole[name][..., ids], rtol=1e-4, atol=1e-5)
