"""The critic: every intermediate result, loss and gradient, and other image sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lavis.models.blip2.config import CriticConfig
from lavis.models.blip2.keys import lavis_name
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
from projects.checks.golden.sizes import build, model_fields


def record_outputs(model: torch.nn.Module, wanted: dict[str, torch.nn.Module]) -> dict[str, list]:
    """Keep what the given modules return, by name, whenever the model runs."""
    kept: dict[str, list] = {name: [] for name in wanted}
    for name, module in wanted.items():
        module.register_forward_hook(lambda _m, _i, output, name=name: kept[name].append(output))
    return kept


def critic_checks(folder: Path, config: dict[str, Any]) -> Iterator[Check]:
    """Every intermediate result, loss and gradient, the parameter lists and groups."""
    at = folder / "critic"
    inputs, want = load_file(at / "inputs.safetensors"), load_file(at / "outputs.safetensors")
    texts = [item["text"] for item in read_json(at / "texts.json")["texts"]]
    weights = read_weights(at / "state_dict.safetensors.xz")
    fields = model_fields(config, config["critic_max_txt_len"])
    model = build("blip2_critic", CriticConfig, fields, weights, rationale_target="qa_label")
    yield from contained("critic.forward", critic_forward_checks(model, inputs, texts, want))
    yield from contained("critic.losses", critic_loss_checks(model, inputs, texts, want, at))
    mended = build("blip2_critic", CriticConfig, fields, weights, rationale_target="r_label")
    with torch.no_grad():
        losses = mended({**inputs, "text_input": texts})
    yield compare(
        "critic.loss_r_against_r_label", losses["loss_r"], want["loss_r_against_r_label"], CHANCES
    )
    yield from contained("critic.parameters", parameter_checks(model, at))


def critic_forward_checks(
    model: Any, inputs: dict[str, Tensor], texts: list[str], want: dict[str, Tensor]
) -> Iterator[Check]:
    """Ids, tower, norm, Q-Former layers, heads and probabilities."""
    ids, mask = model.tokenize(texts)
    length = ids.shape[1]
    yield unequal("critic.input_ids", [(ids.tolist(), want["input_ids"][:, :length].tolist())])
    expected_mask = want["attention_mask"][:, :length]  # padded to the longest text, not further
    yield unequal("critic.attention_mask", [(mask.tolist(), expected_mask.tolist())])
    modules = {f"block{i}": block for i, block in enumerate(model.visual_encoder.blocks)}
    layers = {f"layer{i}": layer for i, layer in enumerate(model.qformer.model.encoder.layer)}
    kept = record_outputs(model, {**modules, **layers})
    samples = {"image": inputs["image"], "text_input": texts}
    queries = model.fused_queries(samples)  # with gradients: the last layer is not trimmed
    blocks = torch.stack([torch.cat(kept[name]) for name in modules])  # images come in parts
    features = model.encode_frozen(inputs["image"])
    yield compare("critic.vit_block_outputs", blocks, want["vit_block_outputs"], STATES)
    yield compare("critic.vit_out", features, want["vit_out"], STATES)
    embeds = model.image_embeds(features)
    yield compare("critic.image_embeds", embeds, want["image_embeds"], STATES)
    hidden = torch.stack([kept[name][0] for name in layers])
    expected = want["qformer_layer_outputs"][:, :, : hidden.shape[2]]
    yield compare("critic.qformer_layer_outputs", hidden, expected, STATES)
    yield compare("critic.qformer_query_hidden", queries, want["qformer_query_hidden"], STATES)
    tokens = model.itm_head(queries)
    yield compare("critic.itm_token_logits", tokens, want["itm_token_logits"], STATES)
    predicted = model.predict(samples)
    yield compare("critic.itm_logits", predicted["logits"], want["itm_logits"], STATES)
    yield compare("critic.prediction", predicted["prediction"], want["prediction"], CHANCES)
    for name, head in (("qa_pred", model.qa_head), ("r_pred", model.r_head)):
        yield compare(f"critic.{name}", head(queries).mean(dim=1)[:, 0], want[name], STATES)


def critic_loss_checks(
    model: Any,
    inputs: dict[str, Tensor],
    texts: list[str],
    want: dict[str, Tensor],
    at: Path,
) -> Iterator[Check]:
    """Losses of training and evaluation, and gradients of the released total."""
    samples = {**inputs, "text_input": texts}
    losses = model(samples)
    names = {
        "loss_label": "loss_label",
        "loss_qa": "loss_qa",
        "loss_r": "loss_r_reference",
        "loss": "loss_total_reference",
    }
    for ours, theirs in names.items():
        yield compare(f"critic.{theirs}", losses[ours], want[theirs], CHANCES)
    label_only = {k: v for k, v in samples.items() if not k.endswith("_label")}
    with torch.no_grad():
        yield compare("critic.loss_eval", model(label_only)["loss"], want["loss_eval"], CHANCES)
    yield from contained(
        "critic.gradients",
        gradient_checks("critic", model, losses["loss"], at / "gradients.safetensors"),
    )


def gradient_checks(name: str, model: Any, loss: Tensor, path: Path) -> Iterator[Check]:
    """Gradients of a loss, by the published parameter names."""
    model.zero_grad()
    loss.backward()
    grads = {lavis_name(n): p.grad for n, p in model.named_parameters() if p.grad is not None}
    for key, expected in load_file(path).items():
        found = grads.get(key, torch.full_like(expected, torch.nan))
        # sums over all tokens: their rounding grows with them, and differs between processors
        scale = max(1.0, expected.abs().max().item())
        yield compare(f"{name}.gradient.{key}", found, expected, STATES * scale)


def parameter_checks(model: Any, at: Path) -> Iterator[Check]:
    """Which weights train, which a checkpoint holds, and which are decayed."""
    expected = read_json(at / "trainable.json")
    unused = ("Qformer.cls.",)  # the language-model head, which the critic never runs
    buffers = ("Qformer.bert.embeddings.position_ids",)

    def kept(names: list[str]) -> list[str]:
        return sorted(n for n in names if not n.startswith(unused) and n not in buffers)

    names = {lavis_name(name): p for name, p in model.named_parameters()}
    trainable = [name for name, p in names.items() if p.requires_grad]
    frozen = [name for name, p in names.items() if not p.requires_grad]
    yield unequal("critic.trainable", [(kept(trainable), kept(expected["requires_grad"]))])
    yield unequal("critic.frozen", [(kept(frozen), kept(expected["frozen"]))])
    written = [n for n in expected["keys_written_by_the_trainer"] if not n.endswith("decoder.bias")]
    ours = sorted(model.trainable_state_dict())
    yield unequal("critic.checkpoint_keys", [(ours, sorted(set(written) - set(buffers)))])
    by_id = {id(p): name for name, p in names.items()}
    found = sorted(
        (group["weight_decay"], group["lr_scale"], sorted(by_id[id(p)] for p in group["params"]))
        for group in model.get_optimizer_params(0.05, 1.0)
    )
    groups = sorted(
        (group["weight_decay"], group["lr_scale"], sorted(group["params"]))
        for group in read_json(at / "optimizer_groups.json")
    )
    yield unequal("critic.optimizer_groups", [(found, groups)])


def resized_checks(folder: Path, config: dict[str, Any]) -> Iterator[Check]:
    """The critic at other image sizes: its position table is resampled while loading."""
    weights = read_weights(folder / "critic" / "state_dict.safetensors.xz")
    texts = [item["text"] for item in read_json(folder / "critic" / "texts.json")["texts"]]
    for path in sorted((folder / "resized_vit").glob("size_*.safetensors")):
        want = load_file(path)
        fields = model_fields(config, config["critic_max_txt_len"])
        fields["image_size"] = want["image"].shape[-1]
        model = build("blip2_critic", CriticConfig, fields, weights)
        name = f"resized_vit.{fields['image_size']}"
        samples = {"image": want["image"], "text_input": texts[: len(want["image"])]}
        table = model.visual_encoder.pos_embed
        yield compare(f"{name}.pos_embed", table, want["pos_embed"], STATES)
        features = model.encode_frozen(want["image"])
        yield compare(f"{name}.vit_out", features, want["vit_out"], STATES)
        embeds = model.image_embeds(features)
        yield compare(f"{name}.image_embeds", embeds, want["image_embeds"], STATES)
        with torch.no_grad():
            queries, found = model.fused_queries(samples), model.predict(samples)
        yield compare(f"{name}.query_hidden", queries, want["qformer_query_hidden"], STATES)
        yield compare(f"{name}.itm_logits", found["logits"], want["itm_logits"], STATES)
        yield compare(f"{name}.prediction", found["prediction"], want["prediction"], CHANCES)
