"""Questions about an image from somebody who has only read about it, answered by who sees it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image

from lavis.common.errors import ConfigError, nearest
from lavis.common.registry import verbalizers
from lavis.verbalizers.base import (
    Descriptors,
    Scene,
    Tools,
    Verbalizer,
    WriteError,
    Writer,
    WriteRequest,
    region_entries,
    set_aside,
)
from lavis.verbalizers.captions import writer_identity
from lavis.verbalizers.config import DynamicConfig

_NUMBERING = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s*")
_REGION = re.compile(r"\[(\d+)\]")
NO_QUESTION = "no question in the reply"
_LONGEST = 300  # characters of a question; more is no question


@verbalizers.register("dynamic")
class DynamicQuestions(Verbalizer):
    """A language model asks from the notes, a model that sees the image answers."""

    config_class: ClassVar[type] = DynamicConfig
    reads_regions: ClassVar[bool] = True
    config: DynamicConfig

    def __init__(self, config: DynamicConfig, tools: Tools) -> None:
        super().__init__(config, tools)
        self.asker: Writer = tools.writer(config.asker)
        same = config.answerer == config.asker
        self.answerer: Writer = self.asker if same else tools.writer(config.answerer)

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

    def describe(self, scenes: Sequence[Scene]) -> list[Descriptors]:
        asked = self.ask(scenes)
        found: list[Descriptors] = [{"dynamic": []} for _ in scenes]
        wanted: list[tuple[int, int, str]] = []
        for place, questions in enumerate(asked):
            if isinstance(questions, WriteError):
                set_aside(found[place], questions)
            elif not questions:
                set_aside(found[place], NO_QUESTION)
            else:
                wanted += [(place, number, text) for number, text in enumerate(questions)]
        requests = (self._request(scenes[place], number, text) for place, number, text in wanted)
        replies = self.answerer.write(requests)
        for (place, _, question), reply in zip(wanted, replies, strict=True):
            if isinstance(reply, WriteError) or not reply:
                set_aside(found[place], reply or "empty text", f"answer to {question!r}")
            else:
                found[place]["dynamic"].append({"question": question, "answer": reply})
        return found

    def ask(self, scenes: Sequence[Scene]) -> list[list[str] | WriteError]:
        """Return the questions about each scene."""
        requests = [
            WriteRequest(
                key=f"{self.tools.stage}:{scene.image}:ask",
                prompt=self.prompt(scene.record),
                image=scene.read_image() if self.config.asker.type == "local" else None,
                seed=self.tools.seed_of(scene.image, "ask"),
                by_line=True,
                problem_of=self._problem_of,
            )
            for scene in scenes
        ]
        replies = self.asker.write(requests)
        return [
            reply if isinstance(reply, WriteError) else read_questions(reply, self.config.questions)
            for reply in replies
        ]

    def _problem_of(self, reply: str) -> str:
        return "" if read_questions(reply, self.config.questions) else NO_QUESTION

    def prompt(self, record: Mapping[str, Any]) -> str:
        """Return what the asker is told of an image."""
        notes = write_notes(record)[: self.config.max_notes]
        count = str(self.config.questions)
        return self.config.ask_prompt.replace("{n}", count).replace("{notes}", notes)

    def _request(self, scene: Scene, number: int, question: str) -> WriteRequest:
        return WriteRequest(
            key=f"{self.tools.stage}:{scene.image}:answer{number}",
            prompt=self.config.answer_prompt.replace("{question}", question),
            image=self._shown(scene, question),
            seed=self.tools.seed_of(scene.image, "answer", number),
        )

    def _shown(self, scene: Scene, question: str) -> Image.Image:
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
    """Return what a record says of its image, as lines of text."""
    lines = [f"Caption: {text}" for text in record.get("captions", [])]
    lines += [f"Narrative: {text}" for text in record.get("narratives", [])]
    for kind, tags in record.get("concepts", {}).items():
        lines.append(f"Likely {kind}: {', '.join(_text(tag) for tag in tags)}")
    for entry in region_entries(record):
        parts = [entry.get("obj_guess", ""), entry.get("caption", "")]
        parts.append(", ".join(_text(tag) for tag in entry.get("attributes", [])))
        lines.append(f"[{entry['name']}]: {'; '.join(part for part in parts if part)}")
    for pair in record.get("dynamic", []):
        lines.append(f"Q: {pair['question']} A: {pair['answer']}")
    return "\n".join(lines)


def _text(tag: Any) -> str:
    return str(tag["text"]) if isinstance(tag, Mapping) else str(tag)
