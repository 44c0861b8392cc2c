"""What `scripts/bench_fusion.py` times: late fusion, and plainly written baselines of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, CLIPVisionConfig, DynamicCache, PreTrainedTokenizerFast

from lavis.common import dist, registry
from lavis.common.config.loading import load_config

AGREEMENT = 1e-4
SHARE = 0.5  # weight of an image's prediction, the rest is the text's
TARGETS = {"question": 8.0, "prompt": 2.5}  # baseline / ours, by who has images of its own
LLMS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "gemma": (  # Gemma-3-270M, the quickstart's: a vocabulary as today's models have
        "gemma3_text",
        {
            "vocab_size": 262144,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "sliding_window": 512,
        },
    ),
}
QUICK_LLM = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 1200, "initializer_range": 0.3}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
QUICK_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
WORDS = (
    "water table paper glass bottle hand wood fire kitchen salt bread oven knife paint wall car"
    " engine oil wheel shirt button thread needle soap garden flower seed rope ladder box tape"
    " put the into with and then until a slowly cut open wash dry mix heat hold press turn place"
    " remove clean before after using small large warm cold make sure it is over under from of to"
).split()
THINGS = "goldfish banana fire truck snow owl fox brick lemon crow violin tractor zebra".split()


@dataclass
class Bench:
    """One set of questions on disk, and how to run it.

    Attributes:
        name: `imagenetvc` or `piqa`.
        per: `question` or `prompt`, who has images of its own.
        prompts: of each question.
        options: of next-word questions.
    """

    name: str
    per: str
    folder: Path
    prompts: list[list[str]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    options: tuple[str, ...] = ()

    def image_text(self, question: int, prompt: int) -> str:
        """Return the text whose images a prompt has."""
        if self.per == "prompt":
            return self.prompts[question][prompt]
        return self.titles[question]

    def image_texts(self) -> Iterator[str]:
        """Yield each text that has images."""
        for question, prompts in enumerate(self.prompts):
            for prompt in range(len(prompts)):
                yield self.image_text(question, prompt)


def write_models(folder: Path, llm: str, *, quick: bool) -> None:
    """Write configs of language model and tower, and a tokenizer that knows the words."""
    kind, sizes = LLMS["gpt2" if quick else llm]
    config = AutoConfig.for_model(kind, **{**sizes, **(QUICK_LLM if quick else {}), **ENDS})
    config.save_pretrained(folder / "llm")
    tower: dict[str, Any] = {}
    if quick:
        tower = {"image_size": 64, "num_attention_heads": 4, **QUICK_TOWER}
    CLIPVisionConfig(**tower).save_pretrained(folder / "tower")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1100,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    from lavis.datasets.benchmarks.imagenetvc import CANDIDATES, PROMPTS

    words = [*WORDS, *THINGS, *CANDIDATES["color"], *"What color is a the".split(), *PROMPTS]
    text = " ".join([*words, *(word.capitalize() for word in words)])
    tokenizer.train_from_iterator([text] * 20, trainer)
    end = "<|endoftext|>"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)
    fast.save_pretrained(folder / "llm")


def write_bench(folder: Path, name: str, per: str, items: int, num_images: int) -> Bench:
    """Write questions, a pool of images, and which of them each text has."""
    rng = np.random.default_rng(0)
    (folder / "pool").mkdir(parents=True)
    bench = Bench(name, per, folder)
    if name == "imagenetvc":
        write_next_words(bench, items, rng)
    else:
        write_two_options(bench, items, rng)
    for number in range(2 * num_images):
        noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC)
        image.save(folder / "pool" / f"{number:02d}.png")
    lines = []
    for text in dict.fromkeys(bench.image_texts()):
        chosen = rng.choice(2 * num_images, num_images, replace=False).tolist()
        lines.append({"prompt": text, "images": [f"{number:02d}.png" for number in chosen]})
    manifest = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "pictures.jsonl").write_text(manifest)
    return bench


def write_next_words(bench: Bench, items: int, rng: np.random.Generator) -> None:
    """Write `color.csv`, ImageNetVC's columns."""
    from lavis.datasets.benchmarks.imagenetvc import CANDIDATES, PROMPTS

    rows = ["category,question,answer"]
    for number in range(items):
        where = " ".join(rng.choice(WORDS, 2))
        title = f"What color is the {THINGS[number % len(THINGS)]} {where}?"
        rows.append(f"thing,{title},{rng.choice(CANDIDATES['color'])}")
        bench.titles.append(title)
        bench.prompts.append([prompt.format(q=title) for prompt in PROMPTS])
    bench.options = CANDIDATES["color"]
    (bench.folder / "color.csv").write_text("\n".join(rows) + "\n")


def write_two_options(bench: Bench, items: int, rng: np.random.Generator) -> None:
    """Write `valid.jsonl`, PIQA's fields, with texts about as long as PIQA's."""
    lines = []
    for _ in range(items):
        goal = " ".join(rng.choice(WORDS, rng.integers(6, 12)))
        ways = [" ".join(rng.choice(WORDS, rng.integers(12, 28))) for _ in range(2)]
        lines.append({"goal": goal, "sol1": ways[0], "sol2": ways[1], "label": 0})
        bench.titles.append(goal)
        bench.prompts.append([f"{goal} {way}" for way in ways])
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (bench.folder / "valid.jsonl").write_text(text)


def run_file(bench: Bench, root: Path, num_images: int, image_size: int) -> Path:
    """Write the run file of our path."""
    subsets = {"subsets": ["color"]} if bench.name == "imagenetvc" else {}
    tree = {
        "model": {
            "arch": "late_fusion",
            "model_type": "default",
            "llm": str(root / "llm"),
            "llm_weights": "config",
            "vision": {"name": str(root / "tower"), "weights": "config"},
            "fusion": {"init": "random"},
            "num_images": num_images,
            "mix": "logits",
            "weights": "mean",
            "weight_multiplier": SHARE,
        },
        "datasets": {
            "benchmark": {
                "benchmark": bench.name,
                "data_dir": str(bench.folder),
                "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": image_size}},
                **subsets,
            }
        },
        "run": {
            "task": "visual_questions",
            "tokenizer": "${model.llm}",
            "test_splits": ["test"],
            "batch_size_eval": 32,
            "images_per": bench.per,
            "columns": ["text", "images"],
            "protocols": ["released"],
            "resamples": 100,
            "report_examples": 0,
            "device": "cpu",
            "images": {
                "generator": "folder",
                "options": {
                    "root": str(bench.folder / "pool"),
                    "manifest": str(bench.folder / "pictures.jsonl"),
                },
                "num_images": num_images,
                "prompt_rule": "verbatim",
                "scorer": None,
                "stored_size": image_size,
            },
        },
    }
    path = bench.folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


class PlainScorer:
    """The baseline: library modules, a prompt at a time, everything done again for each."""

    def __init__(self, model: Any, bench: Bench, tokenizer: Any, image_size: int) -> None:
        self.llm, self.block = model.llm, model.fusion_layer
        self.tower, self.projector = model.mm_model.tower, model.mm_proj
        self.factor = model.fusion_input.factor  # Gemma scales what its blocks read
        self.bench, self.tokenizer, self.image_size = bench, tokenizer, image_size
        self.pool = {
            path.name: Image.open(path).convert("RGB")
            for path in (bench.folder / "pool").glob("*.png")
        }
        lines = (bench.folder / "pictures.jsonl").read_text().splitlines()
        self.images = {e["prompt"]: e["images"] for e in map(json.loads, lines)}

    def pixels(self, text: str) -> torch.Tensor:
        """Return the images of a text as the tower takes them."""
        size = (self.image_size, self.image_size)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        found = []
        for name in self.images[text]:
            image = self.pool[name].resize(size, Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
            found.append((pixels - mean) / std)
        return torch.stack(found)

    def logits(self, text: str, image_text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens `(L,)` and mixed logits `(L, V)` of a text."""
        ids = self.tokenizer(text, return_tensors="pt").input_ids
        features = self.tower(pixel_values=self.pixels(image_text), output_hidden_states=True)
        patches = self.projector(features.hidden_states[-2][:, 1:])
        output = self.llm(input_ids=ids, output_hidden_states=True)
        hidden = output.hidden_states[-1].expand(len(patches), -1, -1)
        rows = torch.cat([patches, hidden], dim=1) * self.factor
        mask = torch.ones(rows.shape[:2], dtype=torch.long)
        fused = self.block(inputs_embeds=rows, attention_mask=mask, use_cache=False)
        logits = self.llm.get_output_embeddings()(fused.last_hidden_state)  # (K, P + L, V)
        seen = logits[:, -ids.shape[1] :]
        return ids[0], (SHARE * seen + (1 - SHARE) * output.logits).mean(dim=0)

    @torch.no_grad()
    def value(self, question: int, prompt: int) -> list[float]:
        """Return log-probability and lead of the best word, or minus the loss of the text."""
        text = self.bench.prompts[question][prompt]
        ids, logits = self.logits(text, self.bench.image_text(question, prompt))
        if self.bench.name == "piqa":
            return [-F.cross_entropy(logits[:-1], ids[1:]).item()]
        log_probs = logits.softmax(dim=-1)[-1].log()
        forms = [*self.bench.options, *(word.capitalize() for word in self.bench.options)]
        first = {self.tokenizer.encode(f" {form}")[0] for form in forms}
        best = sorted((log_probs[token].item() for token in first), reverse=True)
        return [best[0], best[0] - best[1]]

    @torch.no_grad()
    def values(self) -> np.ndarray:
        """Return the values of all questions, flat."""
        found: list[float] = []
        for question, prompts in enumerate(self.bench.prompts):
            for prompt in range(len(prompts)):
                found += self.value(question, prompt)
        return np.array(found)


def build_ours(path: Path, output: Path, model: Any = None) -> Any:
    """Return a runner as `evaluate.py` builds it, around a model that is there."""
    options = [f"run.output_dir={output}", f"run.images.cache_dir={output / 'pictures'}"]
    config = load_config(path, options)
    task = registry.tasks.get(config.run.task)(config.task)
    node = config.datasets["benchmark"]
    datasets = {"benchmark": {"test": registry.datasets.get("benchmark")(node, "test")}}
    if model is None:
        model = registry.models.get(config.model.arch).from_config(config.model).eval()
    world = dist.start(config.run.device)
    return registry.runners.get(config.run.runner)(config, task, model, datasets, world=world)


def store_images(runner: Any, folder: Path) -> None:
    """Fill the store of a run; its folder is what later runs begin with."""
    task, dataset = runner.task, runner.datasets["benchmark"]["test"]
    questions = [dataset.question(index) for index in range(len(dataset))]
    sets = [one for question in questions for one in task.images.sets(question)]
    task.images.store.fill([request for one in sets for request in one], progress=False)
    shutil.copytree(runner.run.output_dir + "/pictures", folder)


def our_values(output: Path, name: str) -> np.ndarray:
    """Return the values in the result rows, flat."""
    rule = "first_token" if name == "imagenetvc" else "sequence_loss"
    lines = (output / "result" / "test_epochbest.jsonl").read_text().splitlines()
    values = [json.loads(line)["values"]["pictures"][rule] for line in lines]
    return np.array(values, dtype=float).ravel()


@contextlib.contextmanager
def beginnings_run_once(model: Any) -> Iterator[None]:
    """Raise `RuntimeError` where texts were to share a beginning, and none did."""
    continued: list[int] = []

    def look(module: Any, args: Any, given: dict[str, Any]) -> None:
        continued.extend(1 for value in given.values() if isinstance(value, DynamicCache))

    handle = model.llm.base_model.register_forward_pre_hook(look, with_kwargs=True)
    with mock.patch.object(model, "shared_starts", wraps=model.shared_starts) as asked:
        try:
            yield
        finally:
            handle.remove()
    if asked.called and not continued:
        raise RuntimeError("texts that begin alike ran in full each: the fast path was not taken")


def compare(name: str, per: str, args: argparse.Namespace) -> dict[str, Any]:
    """Time one set of questions both ways; return what is reported."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_models(root, args.llm, quick=args.quick)
        image_size = 64 if args.quick else 224
        bench = write_bench(root / "set", name, per, args.items, args.images)
        path = run_file(bench, root, args.images, image_size)
        logging.disable(logging.WARNING)
        first = build_ours(path, root / "first")
        store_images(first, root / "stored")
        model = first.model
        plain = PlainScorer(model, bench, first.task.texts.tokenizer, image_size)
        seconds: dict[str, list[float]] = {"baseline": [], "ours": []}
        plain.value(0, 0)  # warm
        for turn in range(args.repeats):
            output = root / f"ours{turn}"
            shutil.copytree(root / "stored", output / "pictures")
            runner = build_ours(path, output, model)
            runner._evaluator._digest()  # once a run whatever its length, like loading weights
            start = time.perf_counter()
            with beginnings_run_once(model):
                runner.evaluate()
            seconds["ours"].append(time.perf_counter() - start)
            start = time.perf_counter()
            expected = plain.values()
            seconds["baseline"].append(time.perf_counter() - start)
        gap = float(np.abs(our_values(output, name) - expected).max())
    times = {side: min(values) for side, values in seconds.items()}
    ratio = times["baseline"] / times["ours"]
    return {"set": name, "pictures_per": per, "ratio": ratio, "gap": gap, **times}


def run_steps(args: argparse.Namespace) -> dict[str, Any]:
    """Run the training benchmark's script and return what it measured."""
    script = Path(__file__).parents[3] / "scripts" / "bench_fusion_step.py"
    with tempfile.TemporaryDirectory() as temporary:
        found = Path(temporary) / "step.json"
        command = [sys.executable, str(script), "--json", str(found), "--threads"]
        command += [str(args.threads), *(["--quick"] if args.quick else [])]
        subprocess.run(command, check=False)
        return json.loads(found.read_text()) if found.is_file() else {"agree": False}


def with_totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows and, for each way of sharing images, all its sets in one."""
    found = list(rows)
    for per in TARGETS:
        own = [row for row in rows if row["pictures_per"] == per]
        if len(own) > 1:
            times = {side: sum(row[side] for row in own) for side in ("baseline", "ours")}
            ratio = times["baseline"] / times["ours"]
            gap = max(row["gap"] for row in own)
            found.append({"set": "all", "pictures_per": per, "ratio": ratio, "gap": gap, **times})
    return found


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a line for each set of questions; targets are for all sets together."""
    print(f"\n{'set':11} {'pictures of':11} {'baseline':>9} {'ours':>8} {'ratio':>6}  largest gap")
    for row in rows:
        target = TARGETS[row["pictures_per"]]
        verdict = "PASS" if row["ratio"] >= target else "below"
        goal = f"; {verdict}, target {target}" if row["set"] == "all" else ""
        state = "agree" if row["gap"] <= AGREEMENT else "DISAGREE"
        times = f"{row['baseline']:7.2f} s {row['ours']:6.2f} s {row['ratio']:6.2f}"
        print(f"{row['set']:11} {row['pictures_per']:11} {times}  {row['gap']:.0e} {state}{goal}")


def run(args: argparse.Namespace) -> int:
    """Run what the flags ask for; 1 where answers disagree."""
    args.threads = args.threads or torch.get_num_threads()
    if args.quick:
        args.items, args.images, args.repeats = min(args.items, 2), min(args.images, 3), 1
    torch.set_num_threads(args.threads)
    rows = with_totals([compare(name, per, args) for per in args.per for name in args.sets])
    print_table(rows)
    report = {"llm": args.llm, "threads": args.threads, "evaluation": rows}
    agree = all(row["gap"] <= AGREEMENT for row in rows)
    if not args.skip_step:
        report["training"] = run_steps(args)
        agree = agree and report["training"]["agree"]
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if agree else 1
