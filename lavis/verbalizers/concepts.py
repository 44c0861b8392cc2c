"""Zero-shot tags: places, objects and actions of the image, and attributes of its regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from lavis.common.registry import verbalizers
from lavis.verbalizers.base import (
    Descriptors,
    Scene,
    Tools,
    Verbalizer,
    model_identity,
    vocabulary,
    vocabulary_identity,
)
from lavis.verbalizers.config import AttributesConfig, ConceptsConfig, EncoderOptions
from lavis.verbalizers.encoder import DualEncoder, best


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
    def identity(cls, config: EncoderOptions) -> dict[str, Any]:
        lists = getattr(config, "vocabularies")  # noqa: B009 - of both subclasses
        return {
            "model": model_identity(config.model, config.revision),
            "vocabularies": vocabulary_identity(lists),
        }

    def tags(self, images: Sequence[Any]) -> list[dict[str, list[dict[str, Any]]]]:
        """Return kind -> best phrases, for each image."""
        if not images:
            return []
        vectors = self.encoder.pictures(images)
        by_kind = {
            kind: best(
                self.encoder.scores(vectors, self.vectors[kind]),
                phrases,
                self.config.top_k,
                self.config.min_score,
            )
            for kind, phrases in self.phrases.items()
        }
        return [
            {kind: found[place] for kind, found in by_kind.items()} for place in range(len(images))
        ]


@verbalizers.register("concepts")
class ConceptTagger(ZeroShotTagger):
    """The phrases of each vocabulary that are nearest to the image."""

    config_class: ClassVar[type] = ConceptsConfig

    def describe(self, scenes: Sequence[Scene]) -> list[Descriptors]:
        tags = self.tags([scene.read_image() for scene in scenes])
        return [{"concepts": found} for found in tags]


@verbalizers.register("attributes")
class AttributeTagger(ZeroShotTagger):
    """The phrases of each vocabulary that are nearest to a region, cut out of its image."""

    config_class: ClassVar[type] = AttributesConfig
    reads_regions: ClassVar[bool] = True

    def needs_image(self, scene: Scene) -> bool:
        return bool(scene.regions)

    def describe(self, scenes: Sequence[Scene]) -> list[Descriptors]:
        found: list[Descriptors] = [{"regions": {}} for _ in scenes]
        places = [(place, region) for place, s in enumerate(scenes) for region in s.regions]
        size = self.config.batch_size
        for start in range(0, len(places), size):  # crops of one batch at a time
            part = places[start : start + size]
            crops = [scenes[place].crop(region, self.config.margin) for place, region in part]
            for (place, region), tags in zip(part, self.tags(crops), strict=True):
                attributes = [{**tag, "kind": kind} for kind in tags for tag in tags[kind]]
                found[place]["regions"][str(region.region_id)] = {"attributes": attributes}
        return found
