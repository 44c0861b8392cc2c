"""What `scripts/bench_fusion_step.py` times: a training step, plain and ours."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, CLIPVisionConfig

from lavis.common.dist import World
from lavis.common.storage.cache import Cache
from lavis.models.late_fusion.config import FusionConfig, LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from lavis.runners.features import VisionFeatures
from lavis.tasks.language_modeling.states import TextStates

AGREEMENT = 1e-4
SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_fusion_step.py"
WAYS = ("plain", "ours", "cached")
TARGETS = {"time": 0.8, "memory": 1 / 3, "cached": 0.5}  # of the plain step's
TEXTS, TOKENS = 32, 128
QUICK_LLM = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 500, "initializer_range": 0.3}
QUICK_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "image_size": 64}


def build_model(folder: Path, *, quick: bool) -> LateFusion:
    """Return a seeded random model without dropout, so that two ways have the same gradients."""
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {**none, **ends, **(QUICK_LLM if quick else {})}
    AutoConfig.for_model("gpt2", **sizes).save_pretrained(folder / "llm")
    tower: dict[str, Any] = {"num_attention_heads": 4, **QUICK_TOWER} if quick else {}
    CLIPVisionConfig(**tower).save_pretrained(folder / "tower")
    torch.manual_seed(0)
    config = LateFusionConfig(
        llm=str(folder / "llm"),
        llm_weights="config",
        vision=VisionConfig(name=str(folder / "tower"), weights="config"),
        fusion=FusionConfig(init="random"),
    )
    model = LateFusion.from_config(config)
    model.train()
    return model


def make_samples(model: LateFusion, *, quick: bool) -> dict[str, Tensor]:
    """Return a batch: texts of many lengths up to the longest, an image each."""
    texts, tokens = (3, 12) if quick else (TEXTS, TOKENS)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.language.vocab_size, (texts, tokens), generator=draw)
    mask = torch.ones_like(ids)
    mask[0, tokens - tokens // 4 :] = 0  # padding is no target
    tower: Any = model.mm_model.tower  # type: ignore[union-attr]
    edge = tower.config.image_size
    return {
        "input_ids": ids.masked_fill(mask == 0, 0),
        "attention_mask": mask,
        "labels": ids.masked_fill(mask == 0, -100),
        "pixel_values": torch.randn(texts, 3, edge, edge, generator=draw),
    }


def plain_loss(model: LateFusion, samples: dict[str, Tensor]) -> Tensor:
    """Return the loss as a first version computes it."""
    llm: Any = model.llm
    mask = samples["attention_mask"]
    with torch.no_grad():
        tower: Any = model.mm_model.tower  # type: ignore[union-attr]
        seen = tower(pixel_values=samples["pixel_values"], output_hidden_states=True)
        features = seen.hidden_states[-2][:, 1:]
        base = llm.base_model(input_ids=samples["input_ids"], attention_mask=mask, use_cache=False)
    patches = model.mm_proj(features)
    rows = torch.cat([patches, base.last_hidden_state], dim=1)
    visible = torch.cat([mask.new_ones(patches.shape[:2]), mask], dim=1)
    fused = model.fusion_layer(inputs_embeds=rows, attention_mask=visible, use_cache=False)
    logits = llm.lm_head(fused.last_hidden_state)  # (B, P + L, V)
    labels = torch.cat([mask.new_full(patches.shape[:2], -100), samples["labels"]], dim=1)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def cached_batches(
    model: LateFusion, samples: dict[str, Tensor], folder: Path
) -> Callable[[], dict[str, Tensor]]:
    """Fill a run's caches; return what reads a batch from them."""
    world = World(0, 1, torch.device("cpu"))
    lengths = samples["attention_mask"].sum(dim=1).tolist()
    lists = [row[:n].tolist() for row, n in zip(samples["input_ids"], lengths, strict=True)]
    language: Any = model  # the Protocol of tasks has plain attributes where it has properties
    states = TextStates.of(language, folder)
    states.fill(language, lists, world=world, batch_size=8)
    features = VisionFeatures(Cache(folder), model.frozen_fingerprint())
    encoded = model.encode_images(samples["pixel_values"])
    for number, one in enumerate(encoded):
        features.put(str(number), one)
    kept = {k: v for k, v in samples.items() if k != "pixel_values"}

    def read() -> dict[str, Tensor]:
        found = [features.get(str(number)) for number in range(len(lists))]
        assert all(one is not None for one in found)
        return {
            **kept,
            "vision_features": torch.stack(found),  # type: ignore[arg-type]
            "text_hidden": states.batch(lists, length=kept["input_ids"].shape[1]),
        }

    return read


def measure(way: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the steps of one way in this process; gradients of the first go to a file."""
    model = build_model(folder, quick=args.quick)
    samples = make_samples(model, quick=args.quick)
    read = cached_batches(model, samples, folder / way) if way == "cached" else lambda: samples
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([p for _, p in trained], lr=1e-5)
    idle, seconds, losses = reset_peak(), [], []
    for step in range(args.steps + 1):  # the first one warms up
        start = time.perf_counter()
        given = read()
        loss = plain_loss(model, given) if way == "plain" else model(given)["loss"]
        loss.backward()
        if step == 0:
            torch.save({n: p.grad for n, p in trained}, folder / f"{way}.pt")
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    return {
        "seconds": min(seconds[1:] or seconds),
        "idle_mb": idle,
        "memory_mb": megabytes("VmHWM") - idle,
        "loss": losses[0],
    }


def reset_peak() -> float:
    """Forget the peak of resident memory so far; return what is resident now, MB."""
    Path("/proc/self/clear_refs").write_text("5")
    return megabytes("VmRSS")


def megabytes(name: str) -> float:
    """Return a line of this process's memory status, MB."""
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[name].split()[0]) / 1024


def largest_gap(folder: Path, way: str, plain: dict[str, Tensor]) -> float:
    """Return the largest difference of gradients, relative to the largest one of their weight."""
    found = torch.load(folder / f"{way}.pt", weights_only=True)
    return max(_gaps(found, plain))


def _gaps(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Iterator[float]:
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        # keys' biases have none: rounding is all there is, so the floor is the whole model's
        scale = max(float(value.abs().max()), 1e-3 * largest)
        yield float((found[name] - value).abs().max()) / scale


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each way in a process of its own; return what is reported."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report: dict[str, Any] = {}
        for way in WAYS * args.rounds:
            command = [sys.executable, str(SCRIPT), "--way", way, "--folder", temporary]
            command += ["--steps", str(args.steps), "--threads", str(args.threads)]
            command += ["--quick"] if args.quick else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            one = json.loads(done.stdout.splitlines()[-1])
            if way not in report or one["seconds"] < report[way]["seconds"]:
                report[way] = one
        plain = torch.load(folder / "plain.pt", weights_only=True)
        gaps = {way: largest_gap(folder, way, plain) for way in WAYS[1:]}
    losses = {way: abs(report[way]["loss"] - report["plain"]["loss"]) for way in WAYS[1:]}
    report["gradient_gap"], report["loss_gap"] = gaps, losses
    report["agree"] = max(*gaps.values(), *losses.values()) <= AGREEMENT
    report["ratios"] = {
        "time": report["ours"]["seconds"] / report["plain"]["seconds"],
        "memory": report["ours"]["memory_mb"] / report["plain"]["memory_mb"],
        "cached": report["cached"]["seconds"] / report["plain"]["seconds"],
    }
    return report


def print_report(report: dict[str, Any]) -> None:
    """Print each way, the ratios and whether they agree."""
    print(f"\n{'training step':13} {'time':>9} {'peak above idle':>16}")
    for way in WAYS:
        one = report[way]
        print(f"{way:13} {one['seconds']:7.2f} s {one['memory_mb']:13.0f} MB")
    for name, ratio in report["ratios"].items():
        verdict = "PASS" if ratio <= TARGETS[name] else "above"
        print(f"{name:13} {ratio:.2f} of the plain step's; {verdict}, target {TARGETS[name]:.2f}")
    state = "agree" if report["agree"] else "DISAGREE"
    gap = max(report["gradient_gap"].values())
    print(f"losses and gradients {state}: {max(report['loss_gap'].values()):.0e} and {gap:.0e}")


def run(args: argparse.Namespace) -> int:
    """Measure all ways, or the one this process was started for."""
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    if args.way:
        print(json.dumps(measure(args.way, args.folder, args)))
        return 0
    report = compare(args)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["agree"] else 1
