"""What the model is given: drawn regions, texts, processed images; and the learning rates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from lavis.common import optim  # noqa: F401 (registers the schedules)
from lavis.common.registry import lr_schedulers, processors
from lavis.datasets.lck.record import read_label
from lavis.processors.region import (
    DrawnRegion,
    RegionTag,
    draw_regions,
    region_colors,
    tag_tokens,
)
from projects.checks.golden.checks import CHANCES, EXACT, Check, compare, read_json, unequal


def drawing_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """Pixels of drawn boxes and polygons, the older three-colour style, and the colour formula."""
    at = folder / "drawing"
    cases = read_json(at / "cases.json")

    def drawn(source: str, regions: list[DrawnRegion], **options: Any) -> Image.Image:
        with Image.open(at / source) as image:
            return draw_regions(image.convert("RGB"), regions, **options)

    for case in cases["cases"]:
        regions = [
            DrawnRegion(r["color_id"], tuple(r["coords"][:4]))
            if case["mode"] == "boxes"
            else DrawnRegion(r["color_id"], (0, 0, 0, 0), as_polygons(r["coords"]))
            for r in case["regions"]
        ]
        image = drawn(case["input"], regions)
        yield pixel_check(f"drawing.{case['output']}", image, at / case["output"], case)
    old = cases.get("person_xyz")
    if old:
        regions = [DrawnRegion(i, tuple(box)) for i, box in enumerate(old["boxes"])]
        image = drawn(old["input"], regions, palette="person_xyz")
        yield pixel_check(f"drawing.{old['output']}", image, at / old["output"], old)
    colors = read_json(at / "colors.json")
    pairs = [
        (list(map(list, region_colors(int(key)))), [c["fill_rgba"], c["outline_rgba"]])
        for key, c in colors.items()
    ]
    yield unequal("drawing.colors", pairs)


def as_polygons(parts: list[Any]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return nested lists of points as tuples."""
    return tuple(tuple((x, y) for x, y in part) for part in parts)


def pixel_check(name: str, image: Image.Image, path: Path, case: dict[str, Any]) -> Check:
    """Compare an image with a stored one, by pixels and by hash."""
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"), dtype=int)
    gap = int(np.abs(np.asarray(image, dtype=int) - expected).max())
    same_hash = sha256_rgb(image) == case["sha256_rgb"]
    return Check(name, gap if same_hash else max(gap, 1), EXACT)


def sha256_rgb(image: Image.Image) -> str:
    """Return the SHA-256 of an image's raw RGB bytes."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def text_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """Region tags, text processors and labels."""
    critic_text = processors.get("blip_unified_vqa").from_config({})
    for number, case in enumerate(read_json(folder / "text" / "region_tags.json")):
        ordered = case["regions_carry_their_list_position"]
        tags = {
            int(r["name"]): RegionTag(
                place if ordered else None, r.get("obj_guess", ""), r.get("description", "")
            )
            for place, r in enumerate(case["regions"])
        }
        tokens = tag_tokens(case["tokens"], tags, **case["options"])
        text = " ".join(str(word) for word in tokens)
        after = critic_text(text)
        yield unequal(
            f"text.region_tags.{number}",
            [
                (tokens, case["expected_tokens"]),
                (text, case["expected_text"]),
                (after, case["expected_after_text_processor"]),
            ],
        )
    names = ("blip_unified_vqa", "blip_caption", "blip_question")
    for name in names:
        pairs = []
        for case in read_json(folder / "text" / "text_processors.json")["cases"]:
            node = {"max_words": case["max_words"], "prompt": case["prompt"]}
            if name == "blip_question":
                del node["prompt"]
            call = processors.get(name).from_config(node)
            more = {"add_prompt": case["add_prompt"]} if "add_prompt" in case else {}
            more = more if name == "blip_unified_vqa" else {}
            pairs.append((call(case["text"], **more), case[name]))
        yield unequal(f"text.{name}", pairs)
    two_classes = [
        (read_label(case["record"], polarity="released"), case["expected"])
        for case in read_json(folder / "text" / "labels.json")
        if not case["multi_class"] and not case["generative"]
    ]
    yield unequal("text.labels (two classes)", two_classes)


def image_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """The evaluation image processor on whole images, sub-grids, rows and statistics."""
    at = folder / "image_processor"
    info, want = read_json(at / "info.json"), load_file(at / "expected.safetensors")
    for key, expected in want.items():
        side, image, part = key.split(".")
        size = int(side.removeprefix("eval_"))
        processor = processors.get("blip_image_eval").from_config({"image_size": size})
        with Image.open(at / info["images"][int(image.removeprefix("image_"))]) as opened:
            found = processor(opened.convert("RGB"))
        if part == "sub":
            step = info["sub_step"][str(size)]
            found = found[:, ::step, ::step]
        elif part == "row":
            found = found[:, info["row"][str(size)]]
        elif part == "channel_mean":
            found = found.mean(dim=(1, 2))
        elif part == "channel_std":
            found = found.std(dim=(1, 2))
        tolerance = CHANCES if part.startswith("channel") else 1e-6  # one pixel level is 0.0146
        yield compare(f"image_processor.{key}", found, expected, tolerance)


def schedule_checks(folder: Path, _config: dict[str, Any]) -> Iterator[Check]:
    """Learning rates, bit for bit."""
    for number, case in enumerate(read_json(folder / "lr" / "schedules.json")):
        schedule = lr_schedulers.get(case["schedule"])(**case["config"])
        pairs = [(schedule.lr(epoch, step), lr) for epoch, step, lr in case["rows_epoch_step_lr"]]
        yield unequal(f"lr.{number}.{case['schedule']}", pairs)
