"""Questions of a language model that reads an image's notes, answered by a model that sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from PIL import Image

from lavis.common.errors import ConfigError, nearest
from lavis.common.registry import verbalizers
from lavis.verbalizers.base import (
    DescribedImage,
    Descriptors,
    Tools,
    Verbalizer,
    WriteRequest,
    region_entries,
    set_aside,
    tag_text,
    writer_identity,
)
from lavis.verbalizers.config import DynamicConfig

_NUMBERING = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s*")
_REGION = re.compile(r"\[(\d+)\]")
NO_QUESTION = "no question in the reply"
_LONGEST = 300  # characters of a question; more is no question


@verbalizers.register("dynamic")
class DynamicQuestions(Verbalizer):
    """A language model asks about the notes; a model that sees the image answers."""

    config_class: ClassVar[type] = DynamicConfig
    reads_regions: ClassVar[bool] = True
    config: DynamicConfig

    def __init__(self, config: DynamicConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        self.asker = tools.writer(config.asker)
        same = config.answerer == config.asker
        self.answerer = self.asker if same else tools.writer(config.answerer)

    @classmethod
    def identity(cls, config: DynamicConfig) -> dict[str, Any]:
        return {
            "asker": writer_identity(config.asker),
            "answerer": writer_identity(config.answerer),
        }

    @classmethod
    def reads(cls, config: DynamicConfig, earlier: Mapping[str, type[Verbalizer]]) -> list[str]:
        if config.reads is None:
            return list(earlier)
        for name in config.reads:
            if name not in earlier:
                raise ConfigError(f"reads: no earlier stage '{name}'{nearest(name, earlier)}")
        makers = super().reads(config, earlier)
        return [name for name in earlier if name in {*makers, *config.reads}]

    def describe(self, scenes: Sequence[DescribedImage]) -> list[Descriptors]:
        descriptors: list[Descriptors] = [{"dynamic": []} for _ in scenes]
        items = self._questions(scenes, descriptors)

        def request(place: int, item: tuple[int, str]) -> WriteRequest:
            scene, (number, question) = scenes[place], item
            prompt = self.config.answer_prompt.replace("{question}", question)
            image = self._shown(scene, question)
            return self.request(scene, "answer", number, prompt=prompt, image=image)

        for place, (_, question), text in self.write_texts(
            self.answerer, items, request, descriptors, lambda item: f"answer to {item[1]!r}"
        ):
            descriptors[place]["dynamic"].append({"question": question, "answer": text})
        return descriptors

    def prompt(self, record: Mapping[str, Any]) -> str:
        """Return the asker's prompt about an image."""
        notes = write_notes(record)[: self.config.max_notes]
        count = str(self.config.questions)
        return self.config.ask_prompt.replace("{n}", count).replace("{notes}", notes)

    def _questions(
        self, scenes: Sequence[DescribedImage], descriptors: list[Descriptors]
    ) -> list[tuple[int, tuple[int, str]]]:
        """Return (place of the image, (number, question)) of all questions about the images."""
        sees = self.config.asker.type == "local"

        def read(reply: str) -> list[str]:
            return read_questions(reply, self.config.questions)

        def problem_of(reply: str) -> str:
            return "" if read(reply) else NO_QUESTION

        def request(place: int, _: None) -> WriteRequest:
            scene = scenes[place]
            image = scene.read_image() if sees else None
            made = self.request(scene, "ask", prompt=self.prompt(scene.record), image=image)
            return replace(made, by_line=True, problem_of=problem_of)

        items = [(place, None) for place in range(len(scenes))]
        questions = []
        for place, _, text in self.write_texts(self.asker, items, request, descriptors):
            lines = read(text)
            if not lines:
                set_aside(descriptors[place], NO_QUESTION)
            questions += [(place, line) for line in enumerate(lines)]
        return questions

    def _shown(self, scene: DescribedImage, question: str) -> Image.Image:
        known = {region.region_id for region in scene.regions}
        named = [int(number) for number in _REGION.findall(question)]
        ids = [number for number in dict.fromkeys(named) if number in known]
        if not (self.config.draw and ids):
            return scene.read_image()
        return scene.drawn(ids, line_width="auto", image_size=480)


def read_questions(reply: str, most: int) -> list[str]:
    """Return the distinct lines of a reply that end in `?`, without numbering."""
    lines = re.split(r"\n|(?<=\?)\s", reply)
    questions = (_NUMBERING.sub("", line).strip() for line in lines)
    good = (q for q in questions if q.endswith("?") and 3 < len(q) <= _LONGEST)
    return list(dict.fromkeys(good))[:most]


def write_notes(record: Mapping[str, Any]) -> str:
    """Return the contents of a record as lines of text."""
    lines = [f"Caption: {text}" for text in record.get("captions", [])]
    lines += [f"Narrative: {text}" for text in record.get("narratives", [])]
    for kind, tags in record.get("concepts", {}).items():
        lines.append(f"Likely {kind}: {', '.join(tag_text(tag) for tag in tags)}")
    for entry in region_entries(record):
        parts = [entry.get("obj_guess", ""), entry.get("caption", "")]
        parts.append(", ".join(tag_text(tag) for tag in entry.get("attributes", [])))
        lines.append(f"[{entry['name']}]: {'; '.join(part for part in parts if part)}")
    for pair in record.get("dynamic", []):
        lines.append(f"Q: {pair['question']} A: {pair['answer']}")
    return "\n".join(lines)
