"""Regions for images that come without any, by a vision-language model that writes boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from PIL import Image

from lavis.common.errors import ConfigError, RecordError
from lavis.common.pretrained import load_pretrained
from lavis.common.regions.conventions import (
    Convention,
    RegionReply,
    convention,
    convention_of,
    from_model,
)
from lavis.common.regions.shapes import Box, Size
from lavis.common.registry import verbalizers
from lavis.common.text import words
from lavis.verbalizers.base import (
    DescribedImage,
    Descriptors,
    Tools,
    Verbalizer,
    WriteRequest,
    batches,
    set_aside,
    vocabulary,
    vocabulary_identity,
    writer_identity,
)
from lavis.verbalizers.config import GroundConfig

# Of the others the marks around the numbers are special tokens, which a local writer leaves out.
_LOCAL_STYLES = ("json", "list", "loc4")


@verbalizers.register("ground")
class GroundingModel(Verbalizer):
    """Qwen-VL, GLM-V, InternVL, PaliGemma or another model that answers where things are.

    The model is asked in the words of its convention and read by it. A reply that cannot be read is
    set aside with its text. Regions are numbered in the order of the replies; each carries where it
    comes from: the stage and the convention.
    """

    config_class: ClassVar[type] = GroundConfig
    makes_regions: ClassVar[bool] = True
    config: GroundConfig

    def __init__(self, config: GroundConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        self.convention = _convention(config)
        self.writer = tools.writer(config.writer)
        one = "{label}" in self.convention.detect and self.convention.style != "loc4"
        names = vocabulary(config.vocabulary)
        self.queries = [list(part) for part in batches(names, 1 if one else config.queries)]

    @classmethod
    def identity(cls, config: GroundConfig) -> dict[str, Any]:
        return {
            "convention": _convention(config).describe(),
            "vocabularies": vocabulary_identity({"names": config.vocabulary}),
            **writer_identity(config.writer),
        }

    def needs_image(self, scene: DescribedImage) -> bool:
        return self.config.replace or not scene.regions

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        descriptors: list[Descriptors] = [{} for _ in scenes]
        bare = [place for place, scene in enumerate(scenes) if self.needs_image(scene)]
        items = [(place, number) for place in bare for number in range(len(self.queries))]
        regions: dict[int, list[dict[str, Any]]] = {}
        sent = {place: self._fitting(scenes[place].read_image().size) for place in bare}

        def request(place: int, number: int) -> WriteRequest:
            image = scenes[place].read_image()
            if image.size != sent[place]:
                image = image.resize(sent[place], Image.Resampling.BICUBIC)
            prompt = self.convention.detection_prompt(self.queries[number])
            written = self.request(scenes[place], number, prompt=prompt, image=image)
            size = sent[place]
            return WriteRequest(
                written.key,
                written.prompt,
                written.image,
                written.seed,
                problem_of=lambda text: self._problem(text, size),
            )

        def what(number: int) -> str:
            return f"names {number * len(self.queries[0])} and on"

        for place, number, text in self.write_texts(self.writer, items, request, descriptors, what):
            try:
                replies = from_model(text, sent[place], self.convention)
            except RecordError as error:
                set_aside(descriptors[place], _unreadable(error), what(number))
                continue
            size = scenes[place].read_image().size
            entries = regions.setdefault(place, [])
            entries += self._entries(replies, self.queries[number], sent[place], size)
        for place, entries in regions.items():
            kept = _distinct(entries, self.config.nms)[: self.config.max_regions]
            descriptors[place]["region_locations"] = [
                {"name": str(number), **entry} for number, entry in enumerate(kept)
            ]
        return descriptors

    def _fitting(self, size: Size) -> Size:
        """Return the size that an image is sent in, so that the writer does not resize it again."""
        writer = self.config.writer
        longest = max(size)
        if writer.type == "local" or longest <= writer.image_size:
            return size
        width, height = (max(1, round(edge * writer.image_size / longest)) for edge in size)
        return width, height

    def _problem(self, text: str, size: Size) -> str:
        try:
            from_model(text, size, self.convention)
        except RecordError as error:
            return _unreadable(error)
        return ""

    def _entries(
        self, replies: Sequence[RegionReply], names: Sequence[str], sent: Size, size: Size
    ) -> Iterator[dict[str, Any]]:
        """Yield a reply's boxes in pixels of the image, those of at least a pixel on each side."""
        scales = [whole / part for whole, part in zip(size, sent, strict=True)] * 2
        for reply in replies:
            if reply.shape.kind != "box":
                continue
            box = [edge * scale for edge, scale in zip(reply.shape.box(), scales, strict=True)]
            if box[2] - box[0] < 1 or box[3] - box[1] < 1:
                continue
            label = " ".join(words(reply.label, hyphens=True))
            yield {
                "boxes": [[round(edge, 2) for edge in box]],
                "obj_guess": label or (names[0] if len(names) == 1 else ""),
                "from": {"stage": self.tools.stage, "convention": self.convention.name},
                **({"clipped": True} if reply.clipped else {}),
            }


def _convention(config: GroundConfig) -> Convention:
    """Return how the model is asked and read; of a local one as its own files say.

    Raises:
        ConfigError: it writes no boxes, or a local writer loses the marks around them.
    """
    name, writer = config.convention, config.writer
    if name is None:
        found = _own_convention(config)
    else:
        try:
            found = convention_of(name, config.image_processor or {})
        except ConfigError:
            found = convention(name)
            if config.image_processor is not None:
                raise ConfigError("image_processor: it goes with a model's type") from None
    if found.style is None or "box" not in found.writes or not found.detect:
        raise ConfigError(
            f"convention: {name or found.family} has no text for boxes; name one that the model "
            "can write, such as unit"
        )
    if writer.type == "local" and found.style not in _LOCAL_STYLES:
        raise ConfigError(
            f"convention: {found.name} is written in special tokens, which a local writer does not "
            "return; use writer.type: client with a server, or another convention"
        )
    return found


def _own_convention(config: GroundConfig) -> Convention:
    from transformers import AutoConfig, AutoImageProcessor

    writer = config.writer
    refusal = f"writer.model: cannot load '{writer.model}'"
    own = load_pretrained(AutoConfig, writer.model, refusal=refusal, revision=writer.revision)
    processor = load_pretrained(
        AutoImageProcessor, writer.model, refusal=refusal, revision=writer.revision
    )
    return convention_of(own.model_type, processor.to_dict())


def _distinct(entries: Sequence[dict[str, Any]], most: float) -> list[dict[str, Any]]:
    """Return entries without those that overlap an earlier one more than `most`."""
    kept: list[dict[str, Any]] = []
    for entry in entries:
        if all(_overlap(entry["boxes"][0], other["boxes"][0]) <= most for other in kept):
            kept.append(entry)
    return kept


def _overlap(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes with an area."""
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return across * down / (sum(areas) - across * down)


def _unreadable(error: RecordError) -> str:
    return f"unreadable regions: {error.reason}"
