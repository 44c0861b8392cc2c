"""Regions of images that come without any, found by an open-vocabulary detector."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from lavis.common.pretrained import load_with_processor
from lavis.common.registry import verbalizers
from lavis.common.text import fold, words
from lavis.verbalizers.base import (
    Descriptors,
    Scene,
    Tools,
    Verbalizer,
    model_identity,
    vocabulary,
    vocabulary_identity,
)
from lavis.verbalizers.config import DetectConfig


@verbalizers.register("detect")
class Detector(Verbalizer):
    """OWLv2, Grounding DINO or another zero-shot detector of transformers.

    A long vocabulary is asked for in parts; of boxes that overlap, whatever their names, the best
    one stays. Regions are numbered by falling score.
    """

    config_class: ClassVar[type] = DetectConfig
    makes_regions: ClassVar[bool] = True
    config: DetectConfig

    def __init__(self, config: DetectConfig, tools: Tools) -> None:
        from transformers import AutoModelForZeroShotObjectDetection

        super().__init__(config, tools)
        refusal = f"cannot load '{config.model}' as a zero-shot detector"
        model, self.processor = load_with_processor(
            AutoModelForZeroShotObjectDetection,
            config.model,
            refusal=refusal,
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
        )
        self.model = model.to(tools.device).eval().requires_grad_(False)
        self.names = vocabulary(config.vocabulary)
        read = self.processor.post_process_grounded_object_detection
        self._reads_tokens = "input_ids" in inspect.signature(read).parameters

    @classmethod
    def identity(cls, config: DetectConfig) -> dict[str, Any]:
        return {
            "model": model_identity(config.model, config.revision),
            "vocabularies": vocabulary_identity({"names": config.vocabulary}),
        }

    def needs_image(self, scene: Scene) -> bool:
        return self.config.replace or not scene.regions

    def describe(self, scenes: Sequence[Scene]) -> list[Descriptors]:
        found: list[Descriptors] = [{} for _ in scenes]
        wanted = [place for place, scene in enumerate(scenes) if self.needs_image(scene)]
        size = self.config.batch_size
        for start in range(0, len(wanted), size):
            part = wanted[start : start + size]
            images = [scenes[place].read_image() for place in part]
            for place, regions in zip(part, self.detect(images), strict=True):
                found[place] = {"region_locations": regions}
        return found

    @torch.inference_mode()
    def detect(self, images: Sequence[Image.Image]) -> list[list[dict[str, Any]]]:
        """Return the region entries of each image, best first; empty where nothing is found."""
        boxes: list[list[Tensor]] = [[] for _ in images]
        scores: list[list[Tensor]] = [[] for _ in images]
        names: list[list[str]] = [[] for _ in images]
        for start in range(0, len(self.names), self.config.queries):
            asked = self.names[start : start + self.config.queries]
            for place, result in enumerate(self._ask(images, asked)):
                boxes[place].append(result["boxes"].float().cpu())
                scores[place].append(result["scores"].float().cpu())
                names[place] += [read_name(str(text), asked) for text in result["text_labels"]]
        return [
            self._entries(torch.cat(boxes[i]), torch.cat(scores[i]), names[i], images[i].size)
            for i in range(len(images))
        ]

    def _ask(self, images: Sequence[Image.Image], names: list[str]) -> list[dict[str, Any]]:
        texts = [self.config.template.replace("{}", name) for name in names]
        inputs = self.processor(
            images=list(images), text=[texts] * len(images), return_tensors="pt", padding=True
        ).to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        outputs = self.model(**inputs)
        options: dict[str, Any] = {"text_labels": [names] * len(images)}
        if self._reads_tokens:  # Grounding DINO names a box by the tokens it answers to
            options = {"input_ids": inputs["input_ids"], "text_threshold": self.config.threshold}
        sizes = [(image.height, image.width) for image in images]
        return self.processor.post_process_grounded_object_detection(
            outputs, threshold=self.config.threshold, target_sizes=sizes, **options
        )

    def _entries(
        self, boxes: Tensor, scores: Tensor, names: list[str], size: tuple[int, int]
    ) -> list[dict[str, Any]]:
        """Keep the best boxes, cut to the image and at least a pixel wide and high."""
        from torchvision.ops import nms

        edges = torch.tensor([*size, *size], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0), edges)
        solid = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1).nonzero()[:, 0]
        kept = solid[nms(boxes[solid], scores[solid], self.config.nms)]
        entries = []
        for number, place in enumerate(kept[: self.config.max_regions].tolist()):
            entries.append(
                {
                    "name": str(number),
                    "boxes": [[round(edge, 2) for edge in boxes[place].tolist()]],
                    "obj_guess": names[place],
                    "score": round(float(scores[place]), 6),
                }
            )
        return entries


def read_name(text: str, names: Sequence[str]) -> str:
    """Return which name a detector's label means.

    Grounding DINO answers with the tokens that a box goes with: parts of a name, several names,
    marks of the tokenizer.
    """
    if text in names:
        return text
    said = words(re.sub(r"\[\w+\]", " ", text.lower()), hyphens=True)
    folded = [fold(word) for word in said]
    joined = f" {' '.join(folded)} "
    whole = [name for name in names if f" {fold(name)} " in joined]
    part = [name for name in names if set(fold(name).split()) & set(folded)]
    return max(whole or part or [" ".join(said)], key=len)
