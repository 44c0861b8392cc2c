"""CLIP of a vLMIG set: vectors and scores, as they should be and as released, and preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from lavis.generators.clip import ClipEncoder, Preprocessing, preprocess
from lavis.generators.scoring import similarity
from projects.checks.golden.checks import CHANCES, Check, compare, read_json

PIXELS = 1e-6  # one part in a million of a value of about 1: float32


def clip_checks(at: Path) -> Iterator[Check]:
    """Compare every case of `golden.safetensors`, and every image of `preprocess.safetensors`."""
    how = processing(at)
    model = CLIPModel(CLIPConfig(**read_json(at / "config.json")))
    model.load_state_dict(load_file(at / "model.safetensors"), strict=False)
    golden = load_file(at / "golden.safetensors")
    right = ClipEncoder(model, _no_texts, how)
    released = ClipEncoder(model, _no_texts, how, compat="released")
    for case in sorted({name.split(".")[0] for name in golden if name.endswith(".input_ids")}):
        part = {k.removeprefix(f"{case}."): v for k, v in golden.items() if k.startswith(case)}
        pixels = golden["pool.pixel_values"][part["image_index"]]
        yield from _score_checks(f"clip.{case}", right, released, part, pixels)
    images = load_file(at / "preprocess.safetensors")
    for name in sorted(key.split(".")[0] for key in images if key.endswith(".pixel_values")):
        image = Image.fromarray(images[f"{name}.image_hwc_uint8"].numpy())
        found = preprocess([image], how)[0]
        yield compare(f"clip.preprocess.{name}", found, images[f"{name}.pixel_values"], PIXELS)


def processing(at: Path) -> Preprocessing:
    """Return how a set's images become pixel values."""
    settings = read_json(at / "preprocess.json")
    return Preprocessing(
        shortest_edge=settings["shortest_edge"],
        crop=settings["crop"][0],
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def _score_checks(
    name: str, right: ClipEncoder, released: ClipEncoder, part: dict[str, Tensor], pixels: Tensor
) -> Iterator[Check]:
    images = right.embed_pixels(pixels)
    yield compare(f"{name}.image_embeds", images, part["image_embeds"], CHANCES)
    # A set's right values are those of the last columns; where we cut is our own rule.
    ids, mask = (part[key][:, -right.limit :] for key in ("input_ids", "attention_mask"))
    texts = right.embed_ids(ids, mask)
    yield compare(f"{name}.text_embeds", texts, part["text_embeds"], CHANCES)
    yield compare(f"{name}.score", similarity(texts, images), part["score"], CHANCES)
    texts = released.embed_ids(part["input_ids"], part["attention_mask"])
    yield compare(f"{name}.released.text_embeds", texts, part["text_embeds_reference_bug"], CHANCES)
    scores = similarity(texts, images)
    yield compare(f"{name}.released.score", scores, part["score_reference_bug"], CHANCES)


def _no_texts(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Stand in for a tokenizer: a set brings ids."""
    raise AssertionError(f"no text is tokenized here, but {len(texts)} were given")
