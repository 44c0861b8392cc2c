"""Zero-shot tags by a dual encoder: concepts of the image, and attributes of its regions.

Shapes: N images, V phrases of a vocabulary, E width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lavis.common.errors import ConfigError
from lavis.common.registry import verbalizers
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
from lavis.verbalizers.config import AttributesConfig, ConceptsConfig, EncoderOptions
from lavis.verbalizers.writing import load_local


class DualEncoder:
    """A frozen model of texts and images in one space: CLIP, SigLIP, ALIGN and their kin.

    Raises:
        ConfigError: the model cannot be loaded, or is no dual encoder.
    """

    def __init__(self, config: EncoderOptions, device: str) -> None:
        self.model, self.processor = load_local("AutoModel", config, device, "a dual encoder")
        if not hasattr(self.model, "get_text_features") or not hasattr(self.model, "logit_scale"):
            kind = type(self.model).__name__
            raise ConfigError(f"'{config.model}' is a {kind}, not a dual encoder such as CLIP")
        self.config = config
        self.is_sigmoid = str(self.model.config.model_type).startswith("siglip")
        text_config = getattr(self.model.config, "text_config", self.model.config)
        self.limit = getattr(text_config, "max_position_embeddings", None)  # tokens of a text

    @torch.inference_mode()
    def texts(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return unit vectors `(V, E)`; each is the mean over the templates' unit vectors."""
        vectors: list[Tensor] = []
        # SigLIP saw every text at the same length; shorter padding changes its vectors.
        padding: Any = "max_length" if self.is_sigmoid else True
        for part in batches(phrases, self.config.batch_size):
            total = torch.zeros(())
            for template in templates:
                inputs = self.processor(
                    text=[template.replace("{}", phrase) for phrase in part],
                    padding=padding,
                    truncation=True,
                    max_length=self.limit,
                    return_tensors="pt",
                ).to(self.model.device)
                total = total + _unit(self.model.get_text_features(**inputs)).cpu()
            vectors.append(F.normalize(total / len(templates), dim=-1))
        return torch.cat(vectors)

    @torch.inference_mode()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors `(N, E)`."""
        vectors = []
        for part in batches(images, self.config.batch_size):
            inputs = self.processor(images=list(part), return_tensors="pt")
            pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
            vectors.append(_unit(self.model.get_image_features(pixel_values=pixels)).cpu())
        return torch.cat(vectors)

    def scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return `(N, V)`: softmax over the vocabulary, sigmoid of each, or the cosine."""
        cosine = images @ texts.T
        how = self.config.score
        if how == "auto":
            how = "sigmoid" if self.is_sigmoid else "softmax"
        if how == "similarity":
            return cosine
        logits = cosine * self.model.logit_scale.exp().float().cpu()
        if how == "softmax":
            return logits.softmax(dim=-1)
        bias = getattr(self.model, "logit_bias", None)
        return (logits if bias is None else logits + bias.float().cpu()).sigmoid()


def best(
    scores: Tensor, phrases: Sequence[str], top_k: int, min_score: float | None
) -> list[list[dict[str, Any]]]:
    """Return the best phrases of each row of `(N, V)`, best first, as `{"text", "score"}`.

    Scores are rounded to six digits: beyond them they depend on the batch.
    """
    values, places = scores.topk(min(top_k, len(phrases)), dim=-1)
    return [
        [
            {"text": phrases[place], "score": round(value, 6)}
            for value, place in zip(row_values, row_places, strict=True)
            if min_score is None or value >= min_score
        ]
        for row_values, row_places in zip(values.tolist(), places.tolist(), strict=True)
    ]


def _unit(output: Any) -> Tensor:
    """Normalise features, which newer versions of transformers return inside an output."""
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1)


class ZeroShotTagger(Verbalizer):
    """Compares images with lists of phrases, which are embedded once."""

    config: Any

    def __init__(self, config: Any, tools: Tools) -> None:
        super().__init__(config, tools)
        self.encoder = DualEncoder(config, tools.device)
        self.phrases = {kind: vocabulary(name) for kind, name in config.vocabularies.items()}
        self.vectors = {
            kind: self.encoder.texts(phrases, config.templates)
            for kind, phrases in self.phrases.items()
        }

    @classmethod
    def identity(cls, config: Any) -> dict[str, Any]:
        return {
            "model": model_identity(config.model, config.revision),
            "vocabularies": vocabulary_identity(config.vocabularies),
        }

    def tags(self, images: Sequence[Image.Image]) -> list[dict[str, list[dict[str, Any]]]]:
        """Return kind -> best phrases, for each image."""
        if not images:
            return []
        vectors = self.encoder.images(images)
        by_kind = {
            kind: best(
                self.encoder.scores(vectors, self.vectors[kind]),
                phrases,
                self.config.top_k,
                self.config.min_score,
            )
            for kind, phrases in self.phrases.items()
        }
        return [{kind: tags[n] for kind, tags in by_kind.items()} for n in range(len(images))]


@verbalizers.register("concepts")
class ConceptTagger(ZeroShotTagger):
    """The phrases of each vocabulary that are nearest to the image."""

    config_class: ClassVar[type] = ConceptsConfig

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        return [{"concepts": tags} for tags in self.tags([s.read_image() for s in scenes])]


@verbalizers.register("attributes")
class AttributeTagger(ZeroShotTagger):
    """The phrases of each vocabulary that are nearest to a region, cut out of its image."""

    config_class: ClassVar[type] = AttributesConfig
    reads_regions: ClassVar[bool] = True

    def needs_image(self, scene: DescribedImage) -> bool:
        return bool(scene.regions)

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        descriptors: list[Descriptors] = [{"regions": {}} for _ in scenes]
        places = [(place, region) for place, s in enumerate(scenes) for region in s.regions]
        for part in batches(places, self.config.batch_size):  # crops of one batch at a time
            crops = [scenes[place].crop(region, self.config.margin) for place, region in part]
            for (place, region), tags in zip(part, self.tags(crops), strict=True):
                attributes = [{**tag, "kind": kind} for kind in tags for tag in tags[kind]]
                descriptors[place]["regions"][str(region.region_id)] = {"attributes": attributes}
        return descriptors
