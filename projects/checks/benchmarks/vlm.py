"""A vision-language critic's texts of one image at once, against one after another.

Shapes: N texts of each image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from lavis.common.dist import building_for, pick_device
from lavis.common.storage.atomic import write_text
from lavis.models.vlm.config import VlmCriticConfig
from lavis.models.vlm.critic import VlmCritic
from lavis.models.vlm.inputs import as_image
from projects.checks.tiny_vlm.making import save_random
from projects.checks.tiny_vlm.parts import CHATML, WORDS, chat, make_tokenizer

GAP = 1e-4  # of P(yes)
WANTED = {4: 2.0, 16: 4.0}  # texts of an image -> how many times faster
_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_MORE = (
    "Somebody looked at this image and wrote a question and an answer with a rationale for it "
    "Accept it only if the question makes sense for this image the answer is right the rationale "
    "is true of the image and explains the answer and every region is what it is said to be "
    "Is it to be accepted Answer with Yes or No Question Answer Rationale user assistant "
    "why what who where holding standing near looking at going to because they he she wants cup "
    "street kitchen ball game table old young man woman child umbrella rain"
).split()


def run(args: argparse.Namespace) -> int:
    """Measure, print, and return 1 where scores differ or the texts at once are too slow."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder, building_for(device):
        make_model(folder, quick=args.quick)
        config = VlmCriticConfig(name=folder, dtype="fp32")
        critic = VlmCritic(config).eval()
        for texts in WANTED:
            rows.append(measure(critic, texts, args))
            print(describe(rows[-1], judged=not args.quick), flush=True)
    if args.json is not None:
        write_text(args.json, json.dumps({"device": str(device), "rows": rows}, indent=1) + "\n")
    agree = all(row["gap"] <= GAP for row in rows)
    fast = args.quick or all(row["ratio"] >= WANTED[row["texts"]] for row in rows)
    return int(not (agree and fast))


def measure(critic: VlmCritic, texts: int, args: argparse.Namespace) -> dict[str, Any]:
    """Time both ways over the same images; the fastest round of each counts."""
    samples = make_samples(args.images, texts, edge=56 if args.quick else args.edge)
    ways = {"one": lambda: one_by_one(critic, samples), "ours": lambda: at_once(critic, samples)}
    seconds = dict.fromkeys(ways, float("inf"))
    scores: dict[str, Tensor] = {}
    for _ in range(args.rounds):
        for name, way in ways.items():
            passed, scores[name] = timed(way)
            seconds[name] = min(seconds[name], passed)
    gap = (scores["one"] - scores["ours"]).abs().max().item()
    return {
        "texts": texts,
        "seconds_one_by_one": seconds["one"] / args.images,
        "seconds_at_once": seconds["ours"] / args.images,
        "ratio": seconds["one"] / seconds["ours"],
        "gap": gap,
    }


def timed(way: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return seconds and scores."""
    start = time.perf_counter()
    scores = way().cpu()  # waits for a GPU
    return time.perf_counter() - start, scores


def describe(row: Mapping[str, Any], *, judged: bool) -> str:
    """Return a line on a number of texts."""
    word = "agree" if row["gap"] <= GAP else "DISAGREE"
    wanted = f", at least {WANTED[row['texts']]:g} wanted" if judged else ""
    return (
        f"{row['texts']:3} texts an image: {row['seconds_one_by_one']:.2f} s one by one, "
        f"{row['seconds_at_once']:.2f} s at once: {row['ratio']:.1f} times{wanted}; P(yes) {word}, "
        f"largest difference {row['gap']:.1e}"
    )


def at_once(critic: VlmCritic, samples: Mapping[str, Any]) -> Tensor:
    """Return P(yes) of all texts by the critic."""
    scores: Tensor = critic.predict(samples)["prediction"][:, 1]
    return scores


@torch.no_grad()
def one_by_one(critic: VlmCritic, samples: Mapping[str, Any]) -> Tensor:
    """Return P(yes) of all texts by plain code: template, processor and a forward for each."""
    processor, model, scores = critic.processor, critic.vlm, []
    for part, image in zip(samples["parts"], samples["image_index"], strict=True):
        text = critic.prompt.render({**part, "regions": [], "options": []})
        shown = {"type": "image", "image": as_image(samples["views"][image][0])}
        message = {"role": "user", "content": [shown, {"type": "text", "text": text}]}
        inputs = processor.apply_chat_template(
            [message], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        ).to(critic.device)  # fmt: skip
        logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1].float()
        yes, no = (logits[list(one.tokens)].logsumexp(0) for one in (critic.yes, critic.no))
        scores.append(torch.sigmoid(yes - no))
    return torch.stack(scores)


def make_samples(images: int, texts: int, *, edge: int) -> dict[str, Any]:
    """Return random pictures, and texts of the length of a question, an answer and a rationale."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (images, 3, edge, edge), dtype=np.uint8)
    words = [word for word in _MORE if word.islower()]

    def sentence(length: int) -> str:
        return " ".join(draw.choice(words, length))

    parts = [
        {"question": sentence(9), "answer": sentence(8), "rationale": sentence(12), "text": ""}
        for _ in range(images * texts)
    ]
    index = [image for image in range(images) for _ in range(texts)]
    return {
        "views": [[torch.from_numpy(one)] for one in pixels],
        "parts": parts,
        "image_index": index,
    }


def make_model(folder: str | Path, *, quick: bool) -> None:
    """Save a random model of Qwen2.5-VL's shape, of 110 million weights unless `quick`."""
    tokenizer = make_tokenizer((*CHATML, *_MARKS), words=dict.fromkeys([*WORDS, *_MORE]))
    sizes: dict[str, Any] = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    sizes |= {"size": {"shortest_edge": 28 * 28, "longest_edge": 1280 * 28 * 28}}
    processor = transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(**sizes), tokenizer,
        transformers.Qwen2VLVideoProcessor(**sizes),
        chat_template=chat("<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    width, depth = (32, 2) if quick else (768, 10)
    heads = 4 if quick else 12
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = zip(names, tokenizer.convert_tokens_to_ids(list(_MARKS)), strict=True)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    section = [1, 1, 2] if quick else [8, 12, 12]
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) if quick else 32000, "hidden_size": width,
            "intermediate_size": 3 * width, "num_hidden_layers": depth,
            "num_attention_heads": heads, "num_key_value_heads": heads // 4 or 1,
            "max_position_embeddings": 8192, "tie_word_embeddings": False,
            "rope_parameters": {**rope, "mrope_section": section},
        },
        vision_config={
            "depth": 2 if quick else 6, "hidden_size": width // 2, "intermediate_size": 2 * width,
            "num_heads": heads // 2, "out_hidden_size": width, "fullatt_block_indexes": [1, 5],
        },
        **dict(ids),
    )  # fmt: skip
    save_random(config, processor, folder)
