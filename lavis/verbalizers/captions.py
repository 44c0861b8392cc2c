"""Texts that a model writes about an image, or about each of its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image

from lavis.common.registry import verbalizers
from lavis.verbalizers.base import (
    DescribedImage,
    Descriptors,
    ImageRegion,
    Tools,
    Verbalizer,
    WriteRequest,
    region_entries,
    writer_identity,
)
from lavis.verbalizers.config import CaptionsConfig, RegionCaptionsConfig


class WriterStage(Verbalizer):
    """A stage whose texts one writer writes."""

    config: Any

    def __init__(self, config: Any, tools: Tools) -> None:
        super().__init__(config, tools)
        self.writer = tools.writer(config.writer)

    @classmethod
    def identity(cls, config: Any) -> dict[str, Any]:
        return writer_identity(config.writer)


@verbalizers.register("captions")
class CaptionWriter(WriterStage):
    """Several texts about the whole image, each under a seed of its own; repeats are dropped."""

    config_class: ClassVar[type] = CaptionsConfig
    config: CaptionsConfig

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        config = self.config
        descriptors: list[Descriptors] = [{config.into: []} for _ in scenes]
        items = [(place, n) for place in range(len(scenes)) for n in range(config.samples)]

        def request(place: int, sample: int) -> WriteRequest:
            scene = scenes[place]
            image = scene.read_image()
            return self.request(scene, sample, prompt=config.prompt, image=image)

        for place, _, text in self.write_texts(self.writer, items, request, descriptors):
            if text not in descriptors[place][config.into]:
                descriptors[place][config.into].append(text)
        return descriptors


@verbalizers.register("region_captions")
class RegionCaptionWriter(WriterStage):
    """One text about each region, which the writer sees drawn into its image, or cut out."""

    config_class: ClassVar[type] = RegionCaptionsConfig
    reads_regions: ClassVar[bool] = True
    config: RegionCaptionsConfig

    @classmethod
    def reads(
        cls, config: RegionCaptionsConfig, earlier: Mapping[str, type[Verbalizer]]
    ) -> list[str]:
        return list(earlier) if config.only_missing else super().reads(config, earlier)

    def needs_image(self, scene: DescribedImage) -> bool:
        return bool(self._regions(scene))

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        descriptors: list[Descriptors] = [{"regions": {}} for _ in scenes]
        items = [(place, region) for place, s in enumerate(scenes) for region in self._regions(s)]

        def request(place: int, region: ImageRegion) -> WriteRequest:
            number, image = region.region_id, self._shown(scenes[place], region)
            prompt = self.config.prompt.replace("{name}", region.name)
            prompt = prompt.replace("{id}", str(number))
            return self.request(scenes[place], number, prompt=prompt, image=image)

        for place, region, text in self.write_texts(
            self.writer, items, request, descriptors, lambda region: f"region {region.region_id}"
        ):
            descriptors[place]["regions"][str(region.region_id)] = {"caption": text}
        return descriptors

    def _regions(self, scene: DescribedImage) -> list[ImageRegion]:
        if not self.config.only_missing:
            return list(scene.regions)
        described = {int(e["name"]) for e in region_entries(scene.record) if e.get("caption")}
        return [region for region in scene.regions if region.region_id not in described]

    def _shown(self, scene: DescribedImage, region: ImageRegion) -> Image.Image:
        config = self.config
        if config.show == "crop":
            return scene.crop(region, config.margin)
        return scene.drawn(
            [region.region_id], line_width=config.line_width, image_size=config.image_size
        )
