"""What `scripts/bench_filtering.py` times: filtering, and a plainly written baseline of it."""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw
from torch.utils.flop_counter import FlopCounterMode

from lavis.common.cli import build_runner
from lavis.common.config.loading import load_config
from lavis.processors.region import region_colors

AGREEMENT = 1e-4
IMAGE_SIZE, MAX_TXT_LEN, BATCH = 280, 128, 16
VIT: dict[str, Any] = {
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "patch_size": 14,
    "mlp_ratio": 4.3637,
}
WORDS = (
    "person holding looking at table because street window red two near wearing might be about to"
    " the a standing behind waiting for friend talking smiling food dog running old building"
).split()


def write_world(folder: Path, records: int, texts_per_image: int, seed: int = 0) -> None:
    """Write images of 640 x 480 and LCK records whose texts have LCK's usual lengths."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(records):
        image, text = divmod(number, texts_per_image)
        name = f"{image:06d}.jpg"
        if text == 0:
            noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(
                folder / "images" / name, quality=92
            )
            boxes = [random_box(rng) for _ in range(3)]
        refs = [{"name": str(i), "boxes": [box], "segms": None} for i, box in enumerate(boxes)]
        lines.append(
            {
                "image": name,
                "source": "bench",
                "split": "test",
                "index": f"bench-{number}",
                "region": ["0", "1", "2"],
                "region_all": ["0", "1", "2"],
                "references": refs,
                "question": [*random_words(rng, 5, 9), [0], *random_words(rng, 1, 4), "?"],
                "answer": [[1], *random_words(rng, 5, 14), "."],
                "rationale": [*random_words(rng, 6, 18), [2], "."],
            }
        )
    written = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "records.jsonl").write_text(written)


def random_box(rng: np.random.Generator) -> list[float]:
    """Return a box of some size inside 640 x 480."""
    x, y = rng.uniform(0, 400), rng.uniform(0, 300)
    return [x, y, x + rng.uniform(40, 230), y + rng.uniform(40, 170)]


def random_words(rng: np.random.Generator, low: int, high: int) -> list[str]:
    """Return between `low` and `high` words."""
    return [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(low, high + 1))]


def run_file(world: Path, output: Path) -> Path:
    """Write the run file of our path; sizes of Q-Former and texts are BLIP-2's own."""
    path = output.with_suffix(".yaml")
    tree = {
        "model": {
            "arch": "blip2_critic",
            "model_type": "pretrain",
            "load_pretrained": False,
            "image_size": IMAGE_SIZE,
            "max_txt_len": MAX_TXT_LEN,
            "vit_precision": "fp32",
            "vit": VIT,
        },
        "datasets": {
            "unified_vqa_binary": {
                "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": IMAGE_SIZE}},
                "text_processor": {"eval": {"name": "blip_unified_vqa", "prompt": ""}},
                "build_info": {
                    "annotations": {"test": {"storage": [str(world / "records.jsonl")]}},
                    "images": {"storage": str(world / "images"), "ann_root": ""},
                },
            }
        },
        "run": {
            "task": "multimodal_classification",
            "batch_size_eval": BATCH,
            "report_examples": 0,
            "keep_above": [0.5],
            "output_dir": str(output),
            "device": "cpu",
            "test_splits": ["test"],
        },
    }
    path.write_text(yaml.safe_dump(tree))
    return path


@dataclass
class Clock:
    """Seconds spent inside modules and functions, by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `name`."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def wrap(self, name: str, call: Callable) -> Callable:
        """Return a function that runs `call` on this clock."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running(name):
                return call(*args, **kwargs)

        return timed


class PlainScorer:
    """The baseline: one record per batch row, everything done again for each."""

    def __init__(self, model: Any, world: Path, clock: Clock) -> None:
        self.model = model
        self.world = world
        self.clock = clock
        self.records = [json.loads(line) for line in open(world / "records.jsonl")]

    def image(self, record: dict[str, Any]) -> torch.Tensor:
        """Decode, composite every region over the whole image, resize, normalise."""
        image = Image.open(self.world / "images" / record["image"]).convert("RGB")
        for number, reference in enumerate(record["references"][:5]):
            fill, outline = region_colors(number)
            whole = image.convert("RGBA")
            overlay = Image.new("RGBA", whole.size, (0, 0, 0, 0))
            box = tuple(reference["boxes"][0][:4])
            ImageDraw.Draw(overlay).rectangle(box, fill=fill, outline=outline, width=2)
            image = Image.alpha_composite(whole, overlay).convert("RGB")
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        return (pixels - mean) / std

    def text(self, record: dict[str, Any]) -> str:
        """Join the tokens, regions by number, lower case, 70 words."""
        tokens = [*record["question"], "Answer:", *record["answer"], "Rationale:"]
        tokens += record["rationale"]
        words = [
            " , ".join(f"[{i}]" for i in token) if isinstance(token, list) else token
            for token in tokens
        ]
        return " ".join(" ".join(words).lower().rstrip(" ").split(" ")[:70])

    @torch.no_grad()
    def scores(self) -> np.ndarray:
        """Return P(accept) of every record."""
        model, found = self.model, []
        for start in range(0, len(self.records), BATCH):
            batch = self.records[start : start + BATCH]
            with self.clock.running("loading"):
                image = torch.stack([self.image(record) for record in batch])
            with self.clock.running("tower"):
                features = model.visual_encoder(image)
            with self.clock.running("Q-Former"):
                tokens = model.tokenizer(
                    [self.text(record) for record in batch],
                    padding="max_length",
                    truncation=True,
                    max_length=MAX_TXT_LEN,
                    return_tensors="pt",
                )
                embeds = model.qformer.embed(model.query_tokens, tokens["input_ids"])
                queries = model.query_tokens.shape[1]
                hidden = model.qformer.model(
                    query_embeds=embeds,
                    query_length=queries,
                    attention_mask=torch.cat(
                        [torch.ones(len(batch), queries).long(), tokens["attention_mask"]], dim=1
                    ),
                    encoder_hidden_states=model.ln_vision(features),
                ).last_hidden_state
                logits = model.itm_head(hidden[:, :queries]).mean(dim=1)
            found.append(logits.softmax(dim=1)[:, 1].numpy())
        return np.concatenate(found)


def ours(config_path: Path, output: Path, model: Any, clock: Clock) -> tuple[np.ndarray, float]:
    """Run `evaluate.py`'s path with the given model; return scores and seconds."""
    config = load_config(config_path, [f"run.output_dir={output}"])
    runner = build_runner(config)
    runner.model.load_state_dict(model.state_dict())
    inner = runner.model
    inner.visual_encoder.forward = clock.wrap("tower", inner.visual_encoder.forward)
    inner.qformer.forward = clock.wrap("Q-Former", inner.qformer.forward)
    runner.task.load_unit = clock.wrap("loading", runner.task.load_unit)
    start = time.perf_counter()
    runner.evaluate()
    seconds = time.perf_counter() - start
    rows = json.loads((output / "result" / "test_epochbest.json").read_text())
    return np.array([row["score"] for row in rows]), seconds


def compare(records: int, texts_per_image: int, repeats: int) -> float:
    """Print one workload's times; return the ratio baseline / ours."""
    with tempfile.TemporaryDirectory() as temporary:
        world = Path(temporary) / "world"
        write_world(world, records, texts_per_image)
        path = run_file(world, Path(temporary) / "warm")
        torch.manual_seed(0)
        model = build_runner(load_config(path)).model.eval()
        clocks = {"baseline": Clock(), "ours": Clock()}
        plain = PlainScorer(model, world, clocks["baseline"])
        seconds: dict[str, list[float]] = {"baseline": [], "ours": []}
        ours(path, Path(temporary) / "warm-up", model, Clock())  # imports, allocator, page cache
        for turn in range(repeats):
            start = time.perf_counter()
            expected = plain.scores()
            seconds["baseline"].append(time.perf_counter() - start)
            output = Path(temporary) / f"ours{turn}"
            found, taken = ours(path, output, model, clocks["ours"])
            seconds["ours"].append(taken)
        gap = float(np.abs(found - expected).max())
    best = {name: min(values) for name, values in seconds.items()}
    ratio = best["baseline"] / best["ours"]
    print(f"\n{records} records, {texts_per_image} texts per drawn picture, best of {repeats}")
    for name, clock in clocks.items():
        total = sum(seconds[name])
        parts = {part: clock.seconds.get(part, 0.0) for part in ("loading", "tower", "Q-Former")}
        shares = ", ".join(f"{part} {value / total:.0%}" for part, value in parts.items())
        rest = 1 - sum(parts.values()) / total
        print(
            f"  {name:9} {best[name]:7.2f} s  {records / best[name]:6.2f} records/s"
            f"  ({shares}, rest {rest:.0%})"
        )
    state = "agree" if gap <= AGREEMENT else "DISAGREE"
    print(f"  ratio {ratio:.2f}; scores {state}: largest difference {gap:.1e}")
    if gap > AGREEMENT:
        raise SystemExit(1)
    return ratio


def best_seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the shortest of several runs, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.inference_mode()
def tower_rate(compiled: bool) -> None:
    """Print the tower's GFLOP/s as a share of a large matrix product's."""
    from lavis.models.blip2.config import VitConfig
    from lavis.models.vision import build_vision_tower

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    peak = 2 * 2048**3 / best_seconds(lambda: a @ b) / 1e9
    tower = build_vision_tower("eva_clip_g", IMAGE_SIZE, VitConfig(**VIT)).eval()
    print(f"\nfp32 product of 2048 x 2048: {peak:.0f} GFLOP/s, {torch.get_num_threads()} threads")
    for batch in (1, 4, BATCH):
        image = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        with FlopCounterMode(display=False) as counter:
            eager = tower(image)
        flops = counter.get_total_flops()
        rate = flops / best_seconds(partial(tower, image), 3) / 1e9
        line = f"  tower, batch {batch:2}: {rate:.0f} GFLOP/s, {rate / peak:.2f} of the product's"
        if compiled:
            fast = torch.compile(tower)
            gap = (fast(image) - eager).abs().max()
            rate = flops / best_seconds(partial(fast, image), 3) / 1e9
            line += f"; torch.compile {rate / peak:.2f} (differs by {gap:.0e})"
        print(line)


def merge(rows: int) -> None:
    """Time the merge of synthetic rows in a process of its own."""
    script = Path(__file__).parents[3] / "scripts" / "bench_merge.py"
    subprocess.run([sys.executable, str(script), "--rows", str(rows)], check=True)


def peak_megabytes() -> float:
    """Return this process's largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(args: argparse.Namespace) -> None:
    """Run the workloads that the flags ask for."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    for texts in args.texts:
        compare(args.records, texts, args.repeats)
    print(f"\npeak memory of this process: {peak_megabytes():.0f} MB")
    tower_rate(args.compile)
    if args.merge_rows:
        merge(args.merge_rows)
