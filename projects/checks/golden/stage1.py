"""BLIP-2 stage 1: losses of every case, gradients, captions, features and match logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lavis.models.blip2.config import Stage1Config
from lavis.models.blip2.stage1 import Negatives
from projects.checks.golden.checks import (
    CHANCES,
    STATES,
    Check,
    compare,
    contained,
    read_json,
    read_weights,
    unequal,
)
from projects.checks.golden.critic import gradient_checks
from projects.checks.golden.sizes import build, model_fields


def stage1_checks(folder: Path, config: dict[str, Any]) -> Iterator[Check]:
    """Every comparison of the set's `stage1` folder."""
    at = folder / "stage1"
    cases, want = read_json(at / "cases.json"), load_file(at / "outputs.safetensors")
    image = load_file(at / "inputs.safetensors")["image"]
    weights = read_weights(at / "state_dict.safetensors.xz")
    fields = model_fields(config, config["stage1_max_txt_len"])
    width = config["dims"]["embed_dim"]
    model = build("blip2", Stage1Config, fields, weights, embed_dim=width)
    for name, case in cases["cases"].items():
        yield from contained(
            f"stage1.{name}", loss_checks(model, name, case, cases["texts"], image, want)
        )
    case = cases["cases"]["explicit"]
    losses = model({"image": image, "text_input": cases["texts"]}, named_negatives(case))
    yield from gradient_checks(
        "stage1", model, losses["loss"], at / "gradients_explicit.safetensors"
    )
    with torch.no_grad():
        yield from contained("stage1.pairs", pair_checks(model, case, cases["texts"], image, want))
        yield from contained("stage1.features", feature_checks(model, cases["texts"], image, at))


def named_negatives(case: dict[str, Any]) -> Negatives:
    """Return the negatives that a case names."""
    images, texts = (torch.tensor(case[f"neg_{kind}_index"]) for kind in ("image", "text"))
    every = torch.ones(len(images), dtype=torch.bool)
    return Negatives(images, texts, has_image=every, has_text=every)


def loss_checks(
    model: Any,
    name: str,
    case: dict[str, Any],
    texts: list[str],
    image: Tensor,
    want: dict[str, Tensor],
) -> Iterator[Check]:
    """Losses with the case's negatives, and with negatives drawn from its seed."""
    samples: dict[str, Any] = {"image": image, "text_input": texts}
    if "image_id" in case:
        samples["image_id"] = torch.tensor(case["image_id"])
    for drawn in [False, True] if "seed" in case else [False]:
        with torch.no_grad():
            if drawn:
                torch.manual_seed(case["seed"])
            losses = model(samples, None if drawn else named_negatives(case))
        suffix = " (negatives drawn)" if drawn else ""
        for part in ("loss_itc", "loss_itm", "loss_lm", "loss"):
            key = f"{name}.{part}"
            yield compare(f"stage1.{key}{suffix}", losses[part], want[key], CHANCES)


def pair_checks(
    model: Any, case: dict[str, Any], texts: list[str], image: Tensor, want: dict[str, Tensor]
) -> Iterator[Check]:
    """Similarities, drawing weights, match logits of the loss's pairs, and next-token logits."""
    image_embeds = model.image_embeds(model.encode_frozen(image))
    yield compare("stage1.image_embeds", image_embeds, want["image_embeds"], STATES)
    ids, mask = model.tokenize(texts)
    length = ids.shape[1]
    yield unequal("stage1.input_ids", [(ids.tolist(), want["input_ids"][:, :length].tolist())])
    queries, text_hidden = model.caption_pass(image_embeds, ids, mask)
    i2t, t2i = model.similarities(queries, model.text_pass(ids, mask)[:, 0])
    own = torch.eye(len(texts), dtype=torch.bool)
    for name, found in (("i2t", i2t), ("t2i", t2i)):
        yield compare(f"stage1.sim_{name}", found, want[f"explicit.sim_{name}"], STATES)
        weights = found.masked_fill(own, -10000.0).softmax(dim=1)
        yield compare(f"stage1.weights_{name}", weights, want[f"explicit.weights_{name}"], CHANCES)
    logits, labels = model.matching_pairs(image_embeds, ids, mask, named_negatives(case))
    yield compare("stage1.itm_logits", logits, want["explicit.itm_logits"], STATES)
    yield unequal("stage1.itm_labels", [(labels.tolist(), want["itm_labels"].tolist())])
    decoder_ids = model.decoder_ids(ids)
    pairs = [(decoder_ids.tolist(), want["lm.decoder_input_ids"][:, :length].tolist())]
    yield unequal("stage1.lm.decoder_input_ids", pairs)
    seen = mask[:, 1:].bool()
    log_probs = model.caption_logits(text_hidden[:, :-1])
    top = log_probs.topk(want["lm.top5_logits"].shape[-1]).values
    expected = want["lm.top5_logits"][:, : length - 1]
    yield compare("stage1.lm.top5_logits", top[seen], expected[seen], STATES)
    log_probs = log_probs.log_softmax(dim=-1)
    label = log_probs.gather(-1, decoder_ids[:, 1:, None]).squeeze(-1)
    for name, found in (("label", label), ("mean", log_probs.mean(dim=-1))):
        expected = want[f"lm.{name}_log_prob"][:, : length - 1]
        yield compare(f"stage1.lm.{name}_log_prob", found[seen], expected[seen], STATES)


def feature_checks(model: Any, texts: list[str], image: Tensor, at: Path) -> Iterator[Check]:
    """Features of images, texts and pairs, and match logits of every image with every text."""
    want = load_file(at / "features.safetensors")
    samples = {"image": image, "text_input": texts}
    for mode in ("image", "text", "multimodal"):
        found = model.extract_features(samples, mode)
        for key in [k for k in want if k.startswith(f"{mode}.") and "_embeds" in k]:
            value, expected = getattr(found, key.split(".")[1]), want[key]
            if mode == "text":
                seen = want["text.attention_mask"].bool()
                value, expected = value[seen], expected[seen]
            yield compare(f"stage1.features.{key}", value, expected, STATES)
    queries, image_embeds = model.forward_image(image)
    for name, value in (("query_hidden", queries), ("image_embeds", image_embeds)):
        key = f"forward_image.{name}"
        yield compare(f"stage1.{key}", value, want[key], STATES)
    ids, mask = model.tokenize(texts)
    hidden = model.forward_text(ids, mask)
    yield compare("stage1.forward_text.cls_hidden", hidden, want["forward_text.cls_hidden"], STATES)
    pairs = model.compute_itm(image_embeds, ids, mask)
    yield compare("stage1.compute_itm.pairs", pairs, want["compute_itm.pairs"], STATES)
    count = len(texts)
    every = model.predict(
        {
            "image": image,
            "text_input": texts * len(image),
            "image_index": [place for place in range(len(image)) for _ in range(count)],
        }
    )
    matrix = every["logits"][:, 1].view(len(image), count)
    expected = want["compute_itm.matrix_image_by_text"]
    yield compare("stage1.compute_itm.matrix_image_by_text", matrix, expected, STATES)
