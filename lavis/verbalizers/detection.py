"""Regions for images that come without any, by an open-vocabulary detector."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from lavis.common.registry import verbalizers
from lavis.common.text import fold, words
from lavis.verbalizers.base import (
    DescribedImage,
    Descriptors,
    Tools,
    Verbalizer,
    batches,
    model_identity,
    vocabulary,
    vocabulary_identity,
)
from lavis.verbalizers.config import DetectConfig
from lavis.verbalizers.writing import load_local


@verbalizers.register("detect")
class Detector(Verbalizer):
    """OWLv2, Grounding DINO or another zero-shot detector of transformers.

    A long vocabulary is queried in parts; of boxes that overlap, whatever their names, the best
    one stays. Regions are numbered by falling score.
    """

    config_class: ClassVar[type] = DetectConfig
    makes_regions: ClassVar[bool] = True
    config: DetectConfig

    def __init__(self, config: DetectConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        name = "AutoModelForZeroShotObjectDetection"
        self.model, self.processor = load_local(name, config, tools.device, "a zero-shot detector")
        self.names = vocabulary(config.vocabulary)
        read = self.processor.post_process_grounded_object_detection
        self._reads_tokens = "input_ids" in inspect.signature(read).parameters

    @classmethod
    def identity(cls, config: DetectConfig) -> dict[str, Any]:
        return {
            "model": model_identity(config.model, config.revision),
            "vocabularies": vocabulary_identity({"names": config.vocabulary}),
        }

    def needs_image(self, scene: DescribedImage) -> bool:
        return self.config.replace or not scene.regions

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        descriptors: list[Descriptors] = [{} for _ in scenes]
        bare = [place for place, scene in enumerate(scenes) if self.needs_image(scene)]
        for part in batches(bare, self.config.batch_size):
            images = [scenes[place].read_image() for place in part]
            for place, regions in zip(part, self.detect(images), strict=True):
                descriptors[place] = {"region_locations": regions}
        return descriptors

    @torch.inference_mode()
    def detect(self, images: Sequence[Image.Image]) -> list[list[dict[str, Any]]]:
        """Return the region entries of each image, best first; empty where nothing is detected."""
        boxes: list[list[Tensor]] = [[] for _ in images]
        scores: list[list[Tensor]] = [[] for _ in images]
        names: list[list[str]] = [[] for _ in images]
        for queries in batches(self.names, self.config.queries):
            for place, result in enumerate(self._detections(images, list(queries))):
                boxes[place].append(result["boxes"].float().cpu())
                scores[place].append(result["scores"].float().cpu())
                names[place] += [read_name(str(text), queries) for text in result["text_labels"]]
        return [
            self._entries(torch.cat(boxes[i]), torch.cat(scores[i]), names[i], images[i].size)
            for i in range(len(images))
        ]

    def _detections(self, images: Sequence[Image.Image], names: list[str]) -> list[dict[str, Any]]:
        """Return `boxes` (N, 4), `scores` (N,) and `text_labels` (N) of each image."""
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
        """Return the best of boxes `(N, 4)`, cut to the image and at least a pixel on each side."""
        from torchvision.ops import nms

        edges = torch.tensor([*size, *size], dtype=torch.float32)
        boxes = torch.minimum(boxes.clamp(min=0), edges)
        solid = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1).nonzero()[:, 0]
        kept = solid[nms(boxes[solid], scores[solid], self.config.nms)]
        return [
            {
                "name": str(number),
                "boxes": [[round(edge, 2) for edge in boxes[place].tolist()]],
                "obj_guess": names[place],
                "score": round(float(scores[place]), 6),
            }
            for number, place in enumerate(kept[: self.config.max_regions].tolist())
        ]


def read_name(text: str, names: Sequence[str]) -> str:
    """Return which name a detector's label means.

    Grounding DINO answers with the tokens that a box goes with: parts of a name, several names,
    marks of the tokenizer.
    """
    if text in names:
        return text
    label = words(re.sub(r"\[\w+\]", " ", text.lower()), hyphens=True)
    folded = [fold(word) for word in label]
    joined = f" {' '.join(folded)} "
    whole = [name for name in names if f" {fold(name)} " in joined]
    part = [name for name in names if set(fold(name).split()) & set(folded)]
    return max(whole or part or [" ".join(label)], key=len)
