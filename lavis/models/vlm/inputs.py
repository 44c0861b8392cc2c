"""From views of an image and texts about it to what a model reads; the image is processed once.

Shapes: N prompts about the same views, L tokens of one of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis.common.errors import ConfigError, RecordError
from lavis.common.multimodal import VlmFamily, answer_frame, write_chat

# Of a processor's outputs, those with a value for each token of the prompt.
TYPES = ("token_type_ids", "mm_token_type_ids", "image_embeds_position_mask")
OF_TOKENS = ("input_ids", "attention_mask", *TYPES)
# What processors return, and no model takes to read a prompt.
_UNUSED = ("labels", "rows", "cols", "num_soft_tokens_per_image")


@dataclass(frozen=True)
class Encoded:
    """Prompts about the same views.

    Attributes:
        ids: N lists of tokens.
        types: name of an argument -> N lists, a value for each token.
        vision: what the model takes of the images, a batch of one prompt.
        visible: tokens up to the last one of an image, that all prompts share.
    """

    ids: list[list[int]]
    types: dict[str, list[list[int]]]
    vision: dict[str, Any]
    visible: int


class PromptEncoder:
    """Writes prompts and reads images by a model's processor.

    Args:
        processor: of transformers.
        family: of the model.
    """

    def __init__(self, processor: Any, family: VlmFamily) -> None:
        self.processor, self.family = processor, family
        self._marks = marks_of(processor)
        self._images = image_tokens(processor)

    def check_text(self, text: str) -> None:
        """Raise `RecordError` for a row's text with a mark that would change the prompt's parts."""
        mark = next((mark for mark in self._marks if mark in text), None)
        if mark is not None:
            raise RecordError(f"text holds a mark of the model: {mark!r}")

    def write(self, text: str, num_views: int) -> str:
        """Return a prompt: one user's message, the images in front of the text.

        Raises:
            ConfigError: the model does not read as many images at once.
        """
        if num_views > 1 and self.family.images == "one":
            raise ConfigError(
                f"model.name: the model reads one image at a time, and rows show {num_views}; let "
                "vlm_image show one (drawn, marks, coordinates or plain)"
            )
        content = [*({"type": "image"} for _ in range(num_views)), {"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        return write_chat(self.processor, [message], family=self.family)

    def encode(self, views: Sequence[Tensor], prompts: Sequence[str]) -> Encoded:
        """Return the tokens of prompts, and what the model sees of the views.

        The processor sees the images once, with the first prompt. Another prompt's tokens are the
        first one's up to behind the last image, and then its own, wherever the tokens without
        images agree with that; else the processor is asked again.

        Args:
            views: V images, uint8 `(3, H, W)`.
            prompts: N texts of `write`.
        """
        images = [as_image(view) for view in views]
        first = self._process(images, prompts[0])
        whole = _listed(first["input_ids"])
        bare = [self._tokens(prompt) for prompt in prompts]
        last = self._last_image(whole)
        tail = min(_common_end(whole, bare[0]), len(whole) - last - 1)
        ids = [whole]
        others: dict[int, Mapping[str, Any]] = {}
        for place in range(1, len(prompts)):
            joined = _exchange(whole, bare[0], bare[place], tail)
            if joined is None:
                others[place] = self._process(images, prompts[place])
                joined = _listed(others[place]["input_ids"])
            ids.append(joined)
        types: dict[str, list[list[int]]] = {}
        for name in TYPES:
            if name not in first:
                continue
            own = _listed(first[name])
            types[name] = [
                _listed(others[place][name])
                if place in others
                else own[: len(whole) - tail] + _fill(own, len(row) - len(whole) + tail)
                for place, row in enumerate(ids)
            ]
            types[name][0] = own
        vision = {k: v for k, v in first.items() if k not in (*OF_TOKENS, *_UNUSED)}
        return Encoded(ids, types, vision, last + 1)

    def continuation(self, prompt: str, text: str) -> list[int]:
        """Return the tokens of a text behind a prompt of `write`.

        Raises:
            RecordError: there are none.
        """
        before, whole = self._tokens(prompt), self._tokens(prompt + text)
        rest = whole[len(before) :]
        if whole[: len(before)] != before or not rest:  # the two share a token, or an end is added
            rest = self.processor.tokenizer.encode(text, add_special_tokens=False)
        if not rest:
            raise RecordError("answer is empty: it has no likelihood")
        return list(rest)

    def answer(self, prompt: str, text: str, most: int) -> list[int]:
        """Return the tokens of an answer behind a prompt as a whole turn, its end token included.

        Args:
            most: so many at most; a longer answer is cut and has no end token.

        Raises:
            RecordError: it is empty, or holds a mark of the model.
        """
        if not text.strip():
            raise RecordError("answer is empty: it has no likelihood")
        self.check_text(text)
        between, end = self.frame
        return self.continuation(prompt, f"{between}{text.strip()}{end}")[:most]

    @functools.cached_property
    def frame(self) -> tuple[str, str]:
        """What stands between prompt and answer, and what closes an answer."""
        return answer_frame(self.processor, family=self.family)

    @property
    def stops(self) -> list[int]:
        """Tokens that end an answer: that of the frame, and the tokenizer's end token."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer.encode(self.frame[1], add_special_tokens=False)
        return sorted({ids[-1], tokenizer.eos_token_id} - {None})

    def _process(self, images: list[Image.Image], prompt: str) -> Mapping[str, Any]:
        nested = [images] if self.family.images == "many" else images
        try:
            output: Mapping[str, Any] = self.processor(
                text=[prompt], images=nested, return_tensors="pt", **self._specials(prompt)
            )
        except (ValueError, TypeError, IndexError) as error:
            raise RecordError(f"image not read by the model's processor: {error}") from None
        return output

    def _tokens(self, prompt: str) -> list[int]:
        options = self._specials(prompt)
        ids: list[int] = self.processor.tokenizer(prompt, **options)["input_ids"]
        return ids

    def _specials(self, prompt: str) -> dict[str, Any]:
        """A template that writes bos itself must not get another one."""
        bos = self.processor.tokenizer.bos_token
        return {"add_special_tokens": False} if bos and prompt.startswith(bos) else {}

    def _last_image(self, ids: list[int]) -> int:
        """Return the place of the last token that stands for an image, -1 without any."""
        known = self._images
        return max((place for place, token in enumerate(ids) if token in known), default=-1)


def image_tokens(processor: Any) -> set[int]:
    """Return ids of tokens that images replace or surround."""
    owner, tokenizer = processor, processor.tokenizer
    ids = {getattr(owner, name, None) for name in ("image_token_id", "image_token_index")}
    ids |= set(getattr(owner, "image_token_ids", None) or ())
    names = (getattr(one, "image_token", None) for one in (owner, tokenizer))
    marks = [str(getattr(name, "content", name)) for name in names if name is not None]
    ids |= {tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    return {int(token) for token in ids if isinstance(token, int)} - {tokenizer.unk_token_id}


def marks_of(processor: Any) -> list[str]:
    """Return the marks that a text must not hold: special tokens and places of images."""
    added = processor.tokenizer.added_tokens_decoder.values()
    marks = {token.content for token in added if token.special}
    names = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token")
    for mark in (getattr(processor, name, None) for name in names):
        marks |= {str(getattr(mark, "content", mark))} if mark is not None else set()
    return sorted(mark for mark in marks if len(mark) > 2 and not mark.isspace())


def as_image(view: Tensor) -> Image.Image:
    """Return uint8 `(3, H, W)` as a picture."""
    assert view.dtype == torch.uint8 and view.ndim == 3, (view.dtype, tuple(view.shape))
    return Image.fromarray(view.permute(1, 2, 0).contiguous().cpu().numpy())


def _common_end(one: Sequence[int], other: Sequence[int]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


def _exchange(whole: list[int], bare: list[int], other: list[int], tail: int) -> list[int] | None:
    """Return a prompt's tokens with images, None where they cannot be told from the first one's.

    Args:
        whole, bare: the first prompt's with and without images.
        other: the prompt's without images.
        tail: length of the end that `whole` and `bare` share.
    """
    head = len(bare) - tail
    return whole[: len(whole) - tail] + other[head:] if other[:head] == bare[:head] else None


def _listed(values: Any) -> list[int]:
    """Return the only row of a processor's output, a tensor or lists."""
    row: list[int] = torch.as_tensor(values)[0].tolist()
    return row


def _fill(own: list[int], length: int) -> list[int]:
    """Return what tokens behind the images are: what the first prompt's last one is."""
    return own[-1:] * length
