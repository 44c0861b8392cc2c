"""Texts that a model writes about an image, or about each of its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image

from lavis.common.registry import verbalizers
from lavis.verbalizers.base import (
    Descriptors,
    Scene,
    SceneRegion,
    Tools,
    Verbalizer,
    WriteError,
    Writer,
    WriteRequest,
    model_identity,
    region_entries,
    set_aside,
)
from lavis.verbalizers.config import CaptionsConfig, RegionCaptionsConfig, WriterConfig


def writer_identity(config: WriterConfig) -> dict[str, Any]:
    """Return the files of a local model; a client's settings are in the config already."""
    if config.type == "local":
        return {"model": model_identity(config.model, config.revision)}
    return {}


@verbalizers.register("captions")
class CaptionWriter(Verbalizer):
    """Several texts about the whole image, each under a seed of its own; repeats are dropped."""

    config_class: ClassVar[type] = CaptionsConfig
    config: CaptionsConfig

    def __init__(self, config: CaptionsConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        self.writer: Writer = tools.writer(config.writer)

    @classmethod
    def identity(cls, config: CaptionsConfig) -> dict[str, Any]:
        return writer_identity(config.writer)

    def describe(self, scenes: Sequence[Scene]) -> list[Descriptors]:
        count = self.config.samples
        requests = (
            WriteRequest(
                key=f"{self.tools.stage}:{scene.image}:{sample}",
                prompt=self.config.prompt,
                image=scene.read_image(),
                seed=self.tools.seed_of(scene.image, sample),
            )
            for scene in scenes
            for sample in range(count)
        )
        replies = self.writer.write(requests)
        found: list[Descriptors] = []
        for place in range(len(scenes)):
            found.append(sort_out(self.config.into, replies[place * count : (place + 1) * count]))
        return found


@verbalizers.register("region_captions")
class RegionCaptionWriter(Verbalizer):
    """One text about each region, which the writer sees drawn into its image, or cut out."""

    config_class: ClassVar[type] = RegionCaptionsConfig
    reads_regions: ClassVar[bool] = True
    config: RegionCaptionsConfig

    def __init__(self, config: RegionCaptionsConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        self.writer: Writer = tools.writer(config.writer)

    @classmethod
    def identity(cls, config: RegionCaptionsConfig) -> dict[str, Any]:
        return writer_identity(config.writer)

    @classmethod
    def reads(
        cls, config: RegionCaptionsConfig, earlier: Mapping[str, type[Verbalizer]]
    ) -> list[str]:
        return list(earlier) if config.only_missing else super().reads(config, earlier)

    def needs_image(self, scene: Scene) -> bool:
        return bool(self._wanted(scene))

    def describe(self, scenes: Sequence[Scene]) -> list[Descriptors]:
        wanted = [(place, region) for place, s in enumerate(scenes) for region in self._wanted(s)]
        requests = (self._request(scenes[place], region) for place, region in wanted)
        found: list[Descriptors] = [{"regions": {}} for _ in scenes]
        for (place, region), reply in zip(wanted, self.writer.write(requests), strict=True):
            if isinstance(reply, WriteError) or not reply:
                set_aside(found[place], reply or "empty text", f"region {region.region_id}")
            else:
                found[place]["regions"][str(region.region_id)] = {"caption": reply}
        return found

    def _wanted(self, scene: Scene) -> list[SceneRegion]:
        if not self.config.only_missing:
            return list(scene.regions)
        told = {int(e["name"]) for e in region_entries(scene.record) if e.get("caption")}
        return [region for region in scene.regions if region.region_id not in told]

    def _request(self, scene: Scene, region: SceneRegion) -> WriteRequest:
        prompt = self.config.prompt.replace("{name}", region.name)
        return WriteRequest(
            key=f"{self.tools.stage}:{scene.image}:{region.region_id}",
            prompt=prompt.replace("{id}", str(region.region_id)),
            image=self.shown(scene, region),
            seed=self.tools.seed_of(scene.image, region.region_id),
        )

    def shown(self, scene: Scene, region: SceneRegion) -> Image.Image:
        """Return what the writer sees of a region."""
        config = self.config
        if config.show == "crop":
            return scene.crop(region, config.margin)
        return scene.drawn(
            [region.region_id], line_width=config.line_width, image_size=config.image_size
        )


def sort_out(into: str, replies: Sequence[str | WriteError]) -> Descriptors:
    """Return the distinct texts in order under the name `into`, and why others are missing."""
    texts: dict[str, None] = {}
    found: Descriptors = {into: []}
    for reply in replies:
        if isinstance(reply, WriteError):
            set_aside(found, reply)
        elif reply:
            texts[reply] = None
    found[into] = list(texts)
    if len(found) == 1 and not texts:
        set_aside(found, "empty text")
    return found
