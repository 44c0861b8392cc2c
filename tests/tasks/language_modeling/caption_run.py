"""Tiny language models, tokenizers and captioned images, made on the spot for training tests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast
from transformers.models.auto import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from lavis.models.late_fusion.config import FusionConfig, LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion

COLOURS = {"red": (220, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220)}
WORDS = "a an the of is image small large box ball on old table red green blue .".split()
SPECIAL = {"llama": ("<s>", "</s>"), "gpt2": (None, "<|endoftext|>"), "gemma": ("<bos>", "<eos>")}
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
    "num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 64,
    "initializer_range": 0.3,
}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}


def make_tokenizer(kind: str, folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, with the special tokens of a family."""
    if kind == "bert":
        first = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        names = dict(zip(("pad", "unk", "cls", "sep", "mask"), first, strict=True))
        around = ("[CLS]", "[SEP]")
    else:
        start, end = SPECIAL[kind]
        first = [token for token in ("<unk>", start, end) if token]
        names = {"unk": "<unk>", "eos": end} | ({"bos": start} if start else {})
        around = (start, None)
    words = {word: place for place, word in enumerate([*first, *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token=names["unk"]))
    made.normalizer = normalizers.Lowercase() if kind != "bert" else None
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    parts = [around[0], "$A", around[1]]
    kept = [part for part in parts if part]
    made.post_processor = processors.TemplateProcessing(
        single=" ".join(kept), special_tokens=[(p, words[p]) for p in kept if p != "$A"]
    )
    given = {f"{name}_token": token for name, token in names.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **given)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_llm(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """Write a random language model and its tokenizer, as a local folder of the hub's form."""
    tokenizer = make_tokenizer(kind, folder)
    ids = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    sizes = {**(GPT2 if kind == "gpt2" else SIZES), "vocab_size": len(tokenizer), **ids, **changes}
    config = AutoConfig.for_model(kind, **sizes)
    auto = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
    torch.manual_seed(0)
    auto.from_config(config).save_pretrained(folder)
    return folder


def make_tower(folder: Path) -> Path:
    """Write a random CLIP vision tower: images of 8 pixels, 4 patches of width 12."""
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        image_size=8, patch_size=4,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder)
    return folder


def make_model(folder: Path, kind: str = "llama", **options: Any) -> LateFusion:
    """Build late fusion of a new tiny language model, started at random."""
    llm = make_llm(folder / kind, kind)
    torch.manual_seed(2)
    given = {"fusion": FusionConfig(init="random"), **options}
    tower = VisionConfig(name=str(make_tower(folder / "tower")))
    return LateFusion.from_config(LateFusionConfig(llm=str(llm), vision=tower, **given))


def captions(count: int) -> list[str]:
    """Captions of several lengths; the colour is what only the image tells."""
    colours = list(COLOURS)
    things = ["box", "ball", "small box on the table", "large old ball"]
    return [
        f"a {things[n % 4]} is {colours[n % 3]}" + (" ." if n % 5 == 0 else "")
        for n in range(count)
    ]


def make_visual_genome(folder: Path, count: int = 12) -> Path:
    """Write region descriptions and images as Visual Genome publishes them."""
    (folder / "VG_100K").mkdir(parents=True)
    records = []
    for n, text in enumerate(captions(count)):
        colour = next(value for name, value in COLOURS.items() if name in text)
        if n % 2 == 0:
            Image.new("RGB", (24, 20), (250, 250, 250)).save(folder / "VG_100K" / f"{n}.jpg")
            records.append({"id": n, "regions": []})
        path = folder / "VG_100K" / f"{records[-1]['id']}.jpg"
        with Image.open(path) as image:
            whole = image.convert("RGB")
        x = 12 * (n % 2)
        whole.paste(colour, (x, 0, x + 12, 20))
        whole.save(path)
        region = {
            "region_id": n, "image_id": records[-1]["id"], "phrase": text, "x": x, "y": 0,
            "width": 12, "height": 20,
        }  # fmt: skip
        records[-1]["regions"].append(region)
    (folder / "region_descriptions.json").write_text(json.dumps(records))
    return folder


def run_rank(argv: list[str], env: dict[str, str], log: str) -> None:
    """Be one rank of `train.py` in a fresh process; stderr goes into a file."""
    from lavis.common import cli

    os.environ.update(env)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o644), 2)
    torch.set_num_threads(1)
    sys.exit(cli.run_front_end("", "train", argv))
