"""Prompts with images for a vision-language model on this machine: messages to its inputs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from lavis.common.errors import ConfigError, RecordError, brief
from lavis.common.multimodal import VlmFamily, write_chat
from lavis.common.pixels import IMAGE_REFUSALS, to_rgb
from lavis.llm.base import Message, image_parts, message_texts

_MARKS = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token")
# What processors return, and `generate` does not take.
_UNUSED = ("labels", "rows", "cols", "num_soft_tokens_per_image")
# What a processor raises about images or prompts that its model cannot read.
_REFUSALS = (ValueError, TypeError, IndexError, KeyError, RuntimeError, OSError, AssertionError)


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt, its images in the order of their marks."""

    text: str
    images: list[Image.Image]


class ImagePrompts:
    """Writes and encodes prompts with images by a model's processor.

    Thinking is switched off where the model's template has a switch.

    Args:
        processor: of transformers.
        family: of the model.
    """

    def __init__(self, processor: Any, family: VlmFamily) -> None:
        self._processor, self._family = processor, family
        owners = (processor, processor.tokenizer)
        marks = {getattr(one, name, None) for one in owners for name in _MARKS}
        self._marks = sorted(str(getattr(mark, "content", mark)) for mark in marks if mark)

    def write(self, messages: Sequence[Message]) -> WrittenPrompt:
        """Return the prompt of messages with data URLs; a text may name images by their number.

        Raises:
            RecordError: an image that cannot be read, more of them than the model reads at once, or
                a text with a mark that stands for an image.
        """
        images = [_decode(part) for part in image_parts(messages)]
        if len(images) > 1 and self._family.images == "one":
            raise RecordError(
                f"too many images: the model reads one at a time, and {len(images)} are shown"
            )
        for text in message_texts(messages):
            mark = next((mark for mark in self._marks if mark in text), None)
            if mark is not None:
                raise RecordError(f"mark of an image: a text holds {mark!r}")
        chat = [{"role": m["role"], "content": _parts(m["content"])} for m in messages]
        return WrittenPrompt(self._chat(chat), images)

    def encode(self, prompts: Sequence[WrittenPrompt]) -> dict[str, Any]:
        """Return what `generate` takes of prompts, padded on the left.

        Raises:
            RecordError: the processor refuses one of them.
        """
        nested = self._family.images == "many"
        images = [list(one.images) if nested else one.images[0] for one in prompts]
        bos = self._processor.tokenizer.bos_token
        texts = [one.text for one in prompts]
        # a template that writes bos itself must not get another one
        options = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        try:
            inputs = self._processor(
                text=texts,
                images=images,
                padding=True,
                padding_side="left",
                return_tensors="pt",
                **options,
            )
        except _REFUSALS as error:
            reason = f"image not read by the model's processor: {brief(error)}"
            raise RecordError(reason) from None
        return {key: value for key, value in inputs.items() if key not in _UNUSED}

    def _chat(self, chat: list[dict[str, Any]]) -> str:
        try:
            return write_chat(self._processor, chat, family=self._family)
        except ConfigError as error:  # some templates know no system role
            if chat[0]["role"] != "system":
                raise RecordError(f"chat template: {error}") from None
        first = [p for p in chat[1]["content"] if p["type"] == "image"]
        texts = [p for m in chat[:2] for p in m["content"] if p["type"] == "text"]
        joined = {"type": "text", "text": "\n\n".join(p["text"] for p in texts)}
        return self._chat([{"role": chat[1]["role"], "content": [*first, joined]}, *chat[2:]])


def move(inputs: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return inputs on a model's device, pixels in its dtype."""
    moved = {}
    for key, value in inputs.items():
        if isinstance(value, torch.Tensor):
            dtype = model.dtype if value.is_floating_point() else value.dtype
            value = value.to(model.device, dtype)
        moved[key] = value
    return moved


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {"type": "text", "text": part["text"]} if part["type"] == "text" else {"type": "image"}
        for part in content
    ]


def _decode(part: dict[str, Any]) -> Image.Image:
    url = part["image_url"]["url"]
    head, _, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise RecordError("image not read: a local model takes data URLs only")
    try:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            return to_rgb(image)
    except IMAGE_REFUSALS as error:
        raise RecordError(f"broken image: {brief(error)}") from None
