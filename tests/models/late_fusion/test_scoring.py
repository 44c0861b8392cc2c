"""What counts in the loss, chunks, mixed training, restricted vocabularies, precision."""

import pytest
import torch
import torch.nn.functional as F

from lavis.common.errors import ConfigError


def plain_loss(model, sample, index):
    """Mean cross entropy of every visible token, the first from the last patch, as written."""
    text = model.encode_text(sample["input_ids"], sample["attention_mask"])
    patches = sample["vision_features"].shape[1]
    length = sample["input_ids"].shape[1]
    rows = torch.arange(-1, length).expand(len(index), -1)
    logits = model.logits(model.fuse(text, sample["vision_features"], index, rows))
    assert patches == 5
    losses = []
    for b, ids in enumerate(sample["input_ids"]):
        for k in range(index.shape[1]):
            count = int(sample["attention_mask"][b].sum())
            losses.append(F.cross_entropy(logits[b, k, :count], ids[:count], reduction="none"))
    return torch.cat(losses).mean()


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3", "opt"])
def test_the_loss_is_the_plain_one_in_value_and_gradient(make_model, texts, images, kind):
    model, sample = make_model(kind), {**texts(), **images()}
    sample.pop("scores")
    plain = plain_loss(model, sample, sample["image_index"])
    expected = gradients(model, plain)
    for chunk in (3, 1000):
        model = make_model(kind, loss_chunk=chunk)
        loss = model(sample)["loss"]
        torch.testing.assert_close(loss, plain)
        for name, grad in gradients(model, loss).items():
            torch.testing.assert_close(grad, expected[name], atol=2e-5, rtol=1e-4)
        assert set(expected) == set(gradients(model, model(sample)["loss"]))


def test_padding_never_counts(make_model, texts, images, causal):
    model, seen = make_model(causal), images()
    for more in ({}, {"scores": seen.pop("scores")}):
        right = {**texts(first=2), **seen, **more}
        left = {**texts(first=2, side="left"), **seen, **more}
        loss = model(right)["loss"]
        torch.testing.assert_close(model(left)["loss"], loss, atol=1e-5, rtol=1e-5)
        right["input_ids"] = right["input_ids"].masked_fill(right["attention_mask"] == 0, 33)
        torch.testing.assert_close(model(right)["loss"], loss)


def test_unpadded_batches_need_no_mask(make_model, texts, images, causal):
    model = make_model(causal)
    sample = {**texts((7, 7, 7), first=2), **images(count=1)}
    sample.pop("scores")
    expected = model(sample)["loss"]
    sample.pop("attention_mask")
    torch.testing.assert_close(model(sample)["loss"], expected)
    single = {"input_ids": sample["input_ids"][:, :1], **images(count=1)}
    single.pop("scores")
    assert bool(model(single)["loss"].isfinite())


def test_labels_choose_what_counts(make_model, texts, images):
    model, sample = make_model("llama"), {**texts((6, 6, 6)), **images()}
    sample.pop("scores")
    labels = torch.full((3, 6), -100)
    labels[1, 4] = 17
    text = model.encode_text(sample["input_ids"])
    fused = model.fuse(text, sample["vision_features"], sample["image_index"])
    logits = model.logits(fused[1, :, 3])
    expected = F.cross_entropy(logits, torch.tensor([17, 17]))
    torch.testing.assert_close(model({**sample, "labels": labels})["loss"], expected)
    nothing = model({**sample, "labels": torch.full((3, 6), -100)})["loss"]
    nothing.backward()
    assert nothing.item() == 0


@pytest.mark.parametrize("mix", ["logits", "probs"])
@pytest.mark.parametrize("weights", ["clip", "entropy"])
def test_with_scores_the_mixed_prediction_is_scored(make_model, texts, images, mix, weights):
    model = make_model("qwen2", mix=mix, weights=weights)
    sample = {**texts((5, 5, 5)), **images()}
    positions = torch.arange(4).expand(3, -1)
    targets = sample["input_ids"][:, 1:, None]
    found = model.predict({**sample, "positions": positions, "token_ids": targets})["log_probs"]
    loss = model(sample)["loss"]
    torch.testing.assert_close(loss, -found.mean())
    loss.backward()
    assert model.mm_proj.linear1.weight.grad.abs().sum() > 0


def test_a_restricted_vocabulary(make_model, texts, images):
    model, sample = make_model("gpt2"), {**texts((4, 4, 4)), **images(count=1)}
    sample.pop("scores")
    ids = sample["input_ids"]
    vocabulary = torch.tensor(sorted({*ids[:2].flatten().tolist(), 60}))
    text = model.encode_text(ids)
    rows = torch.arange(-1, 3).expand(3, -1)
    fused = model.fuse(text, sample["vision_features"], sample["image_index"], rows)[:, 0]
    logits = model.logits(fused)[..., vocabulary]
    known = torch.isin(ids, vocabulary)
    places = torch.searchsorted(vocabulary, ids[known])
    expected = F.cross_entropy(logits[known], places)
    found = model({**sample, "loss_vocabulary": vocabulary})["loss"]
    torch.testing.assert_close(found, expected)
    with pytest.raises(ConfigError, match="loss_vocabulary must be sorted"):
        model({**sample, "loss_vocabulary": vocabulary.flip(0)})


def test_hidden_states_and_features_may_come_from_a_cache(make_model, texts, images):
    model, sample = make_model("gemma3"), {**texts(), **images()}
    expected = model(sample)["loss"]
    text = model.encode_text(sample["input_ids"], sample["attention_mask"])
    model.llm.forward = None
    model.llm.base_model.forward = None
    found = model({**sample, "text_hidden": text.hidden})["loss"]
    torch.testing.assert_close(found, expected)


def test_text_alone_has_a_loss_and_bert_needs_labels(make_model, texts, images):
    sample = texts((5, 5))
    model = make_model("llama")
    expected = model.llm(**sample, labels=sample["input_ids"]).loss
    torch.testing.assert_close(model(sample)["loss"], expected)
    with pytest.raises(ConfigError, match="needs 'labels'"):
        make_model("bert")(sample)


def test_frozen_parts_stay_in_evaluation_mode(make_model, texts, images):
    model = make_model("gpt2")
    model.train()
    assert not any(module.training for module in model.llm.modules())
    assert model.fusion_layer.training
    sample = {**texts(), **images()}
    model(sample)["loss"].backward()
    assert all(p.grad is None for p in model.llm.parameters())
    assert all(p.grad is not None for p in model.fusion_layer.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "bert"])
def test_autocast_keeps_trained_weights_in_float32(make_model, texts, images, kind):
    model, sample = make_model(kind), {**texts(), **images()}
    sample["labels"] = sample["input_ids"]
    expected = model(sample)["loss"].item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(sample)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=0.05)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in trained if p.grad is not None)


def test_a_half_precision_language_model(make_model, texts, images):
    model, sample = make_model("llama", llm_dtype="bf16"), {**texts(), **images()}
    assert model.llm.dtype == torch.bfloat16
    assert model.fusion_layer.norm.weight.dtype == torch.float32
    loss = model(sample)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(make_model("llama")(sample)["loss"].item(), rel=0.05)
    found = model.predict(sample)["log_probs"]
    assert found.dtype == torch.float32 and bool(found.isfinite().all())


@pytest.mark.parametrize("kind", ["gpt2", "gemma3"])
def test_recomputing_in_the_backward_pass_changes_nothing(make_model, texts, images, kind):
    sample = {**texts(), **images()}
    model, saving = make_model(kind), make_model(kind, use_grad_checkpoint=True)
    expected = gradients(model, model(sample)["loss"])
    found = gradients(saving, saving(sample)["loss"])
    assert expected.keys() == found.keys()
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name])


def test_a_head_that_scales_its_logits_is_not_plain(make_model, texts, images):
    model, sample = make_model("llama"), {**texts((5, 5, 5)), **images(count=1)}
    sample.pop("scores")
    assert model.language.linear_head() is not None
    whole = model(sample)["loss"].item()
    model.language.config.final_logit_softcapping = 0.5
    assert model.language.linear_head() is None
    assert model(sample)["loss"].item() != pytest.approx(whole)


def test_texts_pass_in_parts_without_a_trace(make_model, texts, monkeypatch, causal):
    model, sample = make_model(causal), texts()
    expected = model.encode_text(**sample).hidden
    seen = []
    forward = model.llm.base_model.forward
    monkeypatch.setattr(
        model.llm.base_model, "forward", lambda **given: seen.append(1) or forward(**given)
    )
    monkeypatch.setattr("lavis.models.late_fusion.language.PART_VALUES", 1)
    torch.testing.assert_close(model.encode_text(**sample).hidden, expected, atol=1e-5, rtol=1e-5)
    assert len(seen) == len(sample["input_ids"]) > 1


@pytest.mark.parametrize("init", ("random", "identity"))
def test_every_trained_weight_gets_a_gradient(kind, init, make_model, texts, images):
    """Processes need not look for unused weights, then."""
    model = make_model(kind, init=init).train()
    assert model.uses_every_weight
    samples = {**texts(), **images(count=1)}
    del samples["scores"]
    if kind in ("bert", "roberta"):
        samples["labels"] = samples["input_ids"]
    model(samples)["loss"].backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == reached
