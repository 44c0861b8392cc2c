"""Late fusion of a family: hidden states, logits, mixing, losses, tokens, gradients, training.

A set's folder holds `<family>/{config,vision_config,golden}.json`, `<family>/{model,golden}
.safetensors` and `images.safetensors`. What a trimmed set leaves out is not compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.mixing import Mixing, image_weights, mix_logits, mix_probs
from lavis.models.late_fusion.model import LateFusion
from projects.checks.golden.checks import CHANCES, Check, compare, contained, read_json, unequal

STATES, LOSSES = 5e-4, 1e-4  # float32 noise of logits with a spread of 3 is about 1e-4
RELEASED = Mixing("logits", "clip", clamp=False)
PAPER = Mixing("probs", "clip")


def families(folder: Path) -> list[Path]:
    """Return the folders of families in a set."""
    found = [path.parent for path in sorted(folder.glob("*/golden.json"))]
    return [path for path in found if _is_family(path)]


def _is_family(at: Path) -> bool:
    try:
        return "b1.text_loss" in read_json(at / "golden.json")
    except ValueError:
        return True  # a broken file: its comparisons fail and say so


class Case:
    """A family's model and what is expected of it."""

    def __init__(self, at: Path) -> None:
        self.name = at.name
        self.tensors = load_file(at / "golden.safetensors")
        self.values = read_json(at / "golden.json")
        self.model = build(at)
        images = at.parent / "images.safetensors"
        has_tower = any("mm_model.vision" in name for name in load_file(at / "model.safetensors"))
        self.images = load_file(images) if images.is_file() and has_tower else {}
        self.has_llm = "layers_left_out" not in self.values

    def features(self, batch: str) -> Tensor:
        """Return the expected vision features of `b2` or `b1k`."""
        return self.tensors[f"{batch}.vision_features"]

    def text(self, batch: str) -> dict[str, Tensor]:
        """Return the text of `b1` or `b2` as samples."""
        names = ["input_ids", "attention_mask", "labels"]
        if not self.has_llm:
            names.append("text_hidden")
        return {name: self.tensors[f"{batch}.{name}"] for name in names}

    def index(self, batch: str) -> Tensor:
        """Return which images each text has."""
        count = len(self.features(batch))
        return torch.arange(count)[None] if batch == "b1k" else torch.arange(count)[:, None]


def build(at: Path, weights: str = "model.safetensors") -> LateFusion:
    """Build a family's model with the set's weights."""
    with tempfile.TemporaryDirectory() as temporary:
        sizes = Path(temporary) / "config.json"
        sizes.write_text((at / "vision_config.json").read_text(encoding="utf-8"))
        config = LateFusionConfig(
            llm=str(at),
            llm_weights="config",
            vision=VisionConfig(name=temporary, weights="config"),
            pretrained=str(at / weights),
        )
        return LateFusion.from_config(config).eval()


def family_checks(at: Path) -> Iterator[Check]:
    """Compare all that a family's folder holds."""
    case = Case(at)
    with torch.no_grad():
        yield from contained(f"{case.name}.layout", _layout_checks(case, at))
        yield from contained(f"{case.name}.vision", _vision_checks(case))
        yield from contained(f"{case.name}.text", _text_checks(case))
        for batch in ("b2", "b1k"):
            yield from contained(f"{case.name}.fusion", _fusion_checks(case, batch))
        yield from contained(f"{case.name}.mixing", _mixing_checks(case))
        yield from contained(f"{case.name}.losses", _loss_checks(case))
        yield from contained(f"{case.name}.generation", _generation_checks(case))
    yield from contained(f"{case.name}.training", _training_checks(case))


def _layout_checks(case: Case, at: Path) -> Iterator[Check]:
    """The same weights from other files, as the training script writes them under a wrapper."""
    ours = case.model.state_dict()
    for path in sorted(at.glob("*.bin")):
        theirs = build(at, path.name).state_dict()
        pairs = [(torch.equal(theirs[name], value), True) for name, value in ours.items()]
        yield unequal(f"{case.name}.{path.stem}", pairs)


def _vision_checks(case: Case) -> Iterator[Check]:
    for batch, images in (("b2", "b2"), ("b1k", "k")):
        name, pixels = f"{batch}.vision_features", case.images.get(f"{images}.pixel_values")
        if pixels is not None:
            found = case.model.encode_images(pixels)
            yield compare(f"{case.name}.{name}", found, case.tensors[name], STATES)
        name = f"{batch}.mm_proj"
        if name in case.tensors:
            found = case.model.mm_proj(case.features(batch))
            yield compare(f"{case.name}.{name}", found, case.tensors[name], STATES)


def _text_checks(case: Case) -> Iterator[Check]:
    """Hidden states and logits where tokens are; an unpadded text is the padded one's."""
    model = case.model
    for batch in ("b1", "b2"):
        sample = case.text(batch)
        mask = sample["attention_mask"].bool()
        hidden = model.texts_of(sample).hidden
        for name, found in (("text_hidden", hidden), ("text_logits", model.logits(hidden))):
            expected = case.tensors.get(f"{batch}.{name}")
            if expected is not None:
                yield compare(f"{case.name}.{batch}.{name}", found[mask], expected[mask], STATES)
    if "nopad.input_ids" in case.tensors and case.has_llm:
        found = model.logits(model.encode_text(case.tensors["nopad.input_ids"]).hidden)
        expected = case.tensors["nopad.text_logits"]
        yield compare(f"{case.name}.nopad.text_logits", found, expected, STATES)


def _fusion_checks(case: Case, batch: str) -> Iterator[Check]:
    """Hidden states and logits of patches and visible text rows."""
    model, features = case.model, case.features(batch)
    text = model.texts_of(case.text("b1" if batch == "b1k" else batch))
    count, patches = features.shape[:2]
    rows = torch.arange(-patches, text.mask.shape[1]).expand(len(text.mask), -1)
    fused = model.fuse(text, features, case.index(batch), rows).flatten(0, 1)  # (count, P + L, H)
    masks = text.keys if batch == "b2" else text.keys.expand(count, -1)
    seen = F.pad(masks, (patches, 0), value=True)
    for name, found in (("fusion_hidden", fused), ("fused_logits", model.logits(fused))):
        expected = case.tensors.get(f"{batch}.{name}")
        if expected is None:
            continue
        kept = seen
        if bool(text.replaced.any()):  # merged: leading slots, patches, text after the start token
            start = text.replaced.long().argmax(dim=1).expand(count)
            kept = torch.arange(expected.shape[1]) >= start[:, None]
        yield compare(f"{case.name}.{batch}.{name}", found[seen], expected[kept], STATES)


def _mixing_checks(case: Case) -> Iterator[Check]:
    """Both ways of mixing, from logits as written down and through `predict`."""
    model, sample = case.model, case.text("b1")
    mask = sample["attention_mask"].bool()
    features, index = case.features("b1k"), case.index("b1k")
    text = model.texts_of(sample)
    alone = model.logits(text.hidden)[mask]  # (n, V)
    fused = model.logits(model.fuse(text, features, index))[0].transpose(0, 1)[mask[0]]  # (n, K, V)
    positions = torch.arange(mask.shape[1])[None]
    for name in [name for name in case.tensors if name.startswith("k.scores")]:
        scores, ending = case.tensors[name], name.removeprefix("k.")
        whole = {**sample, "vision_features": features, "image_index": index}
        whole.update(scores=scores[None], positions=positions)
        predicted = model.predict(whole, {"released": RELEASED, "paper": PAPER})
        for key, way in (("mixed_logits", RELEASED), ("paper_probs", PAPER)):
            expected = case.tensors.get(f"b1k.{key}.{ending}")
            if expected is None:
                continue
            here = torch.ones(1, len(scores), dtype=torch.bool)
            weights = image_weights("clip", scores[None], here, clamp=way.clamp)
            shares = (weights / len(scores)).expand(len(alone), -1)
            label = f"{case.name}.b1k.{key}.{ending}"
            if way is RELEASED:
                mixed = mix_logits(fused, alone, shares)
                yield compare(label, mixed, expected[mask], STATES)
                found, other = predicted["log_probs.released"], expected.log_softmax(dim=-1)
                yield compare(f"{label} (predict)", found[mask], other[mask], STATES)
            else:
                parts = fused.log_softmax(dim=-1), alone.log_softmax(dim=-1)
                yield compare(label, mix_probs(*parts, shares).exp(), expected[mask], CHANCES)
                found = predicted["log_probs.paper"].exp()
                yield compare(f"{label} (predict)", found[mask], expected[mask], CHANCES)


def _loss_checks(case: Case) -> Iterator[Check]:
    model, values = case.model, case.values
    many = {"vision_features": case.features("b1k"), "image_index": case.index("b1k")}
    found = {
        "b1.text_loss": _released_text_loss(case, "b1"),
        "b2.text_loss": _released_text_loss(case, "b2"),
        "b2.fused_loss": _loss(model, case.text("b2"), vision_features=case.features("b2")),
        "b1k.fused_loss_noscores": _loss(model, case.text("b1"), **many),
    }
    model.config = replace(model.config, mix="logits", clamp_weights=False)
    for name in [name for name in case.tensors if name.startswith("k.scores")]:
        key = f"b1k.mixed_loss.{name.removeprefix('k.')}"
        found[key] = _loss(model, case.text("b1"), scores=case.tensors[name][None], **many)
    for key, loss in found.items():
        yield compare(f"{case.name}.{key}", loss, torch.tensor(values[key]), LOSSES)
    alone = [
        _loss(model, case.text("b1"), vision_features=features[None])
        for features in case.features("b1k")
    ]
    expected = torch.tensor(values["b1k.fused_loss_noscores_per_image"])
    yield compare(f"{case.name}.b1k.loss_per_image", torch.stack(alone), expected, LOSSES)


def _loss(model: LateFusion, sample: dict[str, Tensor], **more: Tensor) -> Tensor:
    return model({**sample, **more})["loss"]


def _released_text_loss(case: Case, batch: str) -> Tensor:
    """Return the text-only loss by the released rule.

    With padding on the left that rule also counts the start token, predicted from a row of padding,
    where the released values have no meaning: that row is taken from the set.
    """
    sample = case.text(batch)
    mask = sample["attention_mask"].bool()
    loss = _loss(case.model, sample)
    odd = mask[:, 1:] & ~mask[:, :-1]  # tokens behind padding
    rows = case.tensors.get(f"{batch}.text_logits")
    if case.model.language.is_masked or not bool(odd.any()) or rows is None:
        return loss
    count = int((mask[:, 1:] & ~odd).sum())
    extra = F.cross_entropy(rows[:, :-1][odd], sample["labels"][:, 1:][odd], reduction="sum")
    return (loss * count + extra) / (count + int(odd.sum()))


def _generation_checks(case: Case) -> Iterator[Check]:
    """Greedy tokens, with caches and without."""
    if not case.has_llm:
        return
    images = {"vision_features": case.features("b1k"), "image_index": case.index("b1k")}
    images["scores"] = case.tensors["k.scores"][None]
    one = {name: value[:1] for name, value in images.items() if name == "vision_features"}
    one.update({name: images[name][:, :1] for name in ("image_index", "scores")})
    ways: dict[str, dict[str, Any]] = {
        "text_only_full_recompute": {},
        "fused_full_recompute": {**images, "mixing": RELEASED},
        "fused_full_recompute_one_image": {**one, "mixing": RELEASED},
        "paper_full_recompute": {**images, "mixing": PAPER},
    }
    for prompt, expected in case.values.get("generation", {}).items():
        if not prompt.startswith("prompt"):
            continue
        ids = torch.tensor([expected["input_ids"]])
        options = {
            "attention_mask": torch.tensor([expected["attention_mask"]]),
            "max_new_tokens": expected["max_new_tokens"],
        }
        for way, given in ways.items():
            for cached in (True, False):
                tokens = case.model.generate(ids, use_cache=cached, **options, **given)[0].tolist()
                label = f"{case.name}.{prompt}.{way}{' (cached)' if cached else ''}"
                yield unequal(label, [(tokens, expected[way]["tokens"])])


def _training_checks(case: Case) -> Iterator[Check]:
    """First gradients, and four steps of AdamW."""
    model, want = case.model, case.values["train"]
    sample = {**case.text("b2"), "vision_features": case.features("b2")}
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    yield unequal(
        f"{case.name}.train.trained", [(sorted(weights), sorted(want["grad_l2_norm_first_step"]))]
    )
    optimizer = torch.optim.AdamW(weights.values(), lr=5e-4, weight_decay=0)
    losses = []
    for step in range(len(want["loss_before_each_of_4_steps_and_after"])):
        optimizer.zero_grad()
        loss = model(sample)["loss"]
        losses.append(loss.detach())
        loss.backward()
        if step == 0:
            yield from _gradient_checks(case, weights)
        if step < 4:
            optimizer.step()
    expected = torch.tensor(want["loss_before_each_of_4_steps_and_after"])
    yield compare(f"{case.name}.train.losses", torch.stack(losses), expected, LOSSES)
    for name in [name for name in case.tensors if name.startswith("train.after4.")]:
        found = weights[name.removeprefix("train.after4.")]
        yield compare(f"{case.name}.{name}", found, case.tensors[name], LOSSES)


def _gradient_checks(case: Case, weights: Mapping[str, Tensor]) -> Iterator[Check]:
    for name, norm in case.values["train"]["grad_l2_norm_first_step"].items():
        grad = weights[name].grad
        found = torch.tensor(torch.nan) if grad is None else grad.norm()
        yield compare(f"{case.name}.train.grad_norm.{name}", found, torch.tensor(norm), LOSSES)
    for name in [name for name in case.tensors if name.startswith("train.grad.")]:
        grad = weights[name.removeprefix("train.grad.")].grad
        assert grad is not None
        yield compare(f"{case.name}.{name}", grad, case.tensors[name], LOSSES)
