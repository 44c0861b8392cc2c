"""How many tokens a provider bills for an image: the documented rule of each, as settings."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.llm.tables import load_table

Rule = Literal["flat", "openai_tiles", "openai_patches", "gemini_tiles", "anthropic", "qwen_vl"]
_HEADER = 1 << 16  # characters of a data URL that hold the size of nearly every image
_UNKNOWN_SIZE = (2048, 2048)  # pixels of an image whose size cannot be read
LOW_EDGE = 512  # pixels of an image sent with `detail: low`


@dataclass(frozen=True, config=STRICT)
class _Numbers:
    """The numbers of a rule for a family of models, see `lavis/configs/llm/image_tokens.yaml`."""

    rule: Rule
    base: float = 0.0
    each: float = 1.0  # tokens of a tile or of a patch
    patch: int = 28  # pixels; qwen_vl


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageTokensConfig:
    """How many tokens an image in a prompt is, by its size.

    Attributes:
        rule: a provider's; `auto` takes it from the model's name, and `flat` if that is not
            known; `flat` counts `image_tokens` for every image.
        model: the public name of the model whose numbers count, if the server calls it
            something else, as an Azure deployment is.
        base: tokens of every image, in place of the model's own; openai_tiles.
        each: tokens of a tile or a patch, likewise; openai_tiles, openai_patches, gemini_tiles.
    """

    rule: Rule | Literal["auto"] = "auto"
    model: str | None = None
    base: NonNegativeFloat | None = None
    each: NonNegativeFloat | None = None


class ImageTokens:
    """The rule of one model.

    Args:
        model: its name at the server, folders before it (`openai/gpt-4o`) ignored.
        flat: tokens of an image of unknown size or rule.

    Attributes:
        documented: whether a provider's rule applies.
        label: names the rule with its numbers.
    """

    def __init__(self, config: ImageTokensConfig, model: str, flat: int) -> None:
        known = _family(config.model or model)
        if config.rule == "auto":
            self._rule: Rule = known.rule if known else "flat"
        else:
            self._rule = config.rule
            if known is None or known.rule != config.rule or config.rule == "flat":
                known = _most_expensive(config.rule)
        self.documented = known is not None
        known = known or _Numbers("flat")
        self._base = known.base if config.base is None else config.base
        self._each = known.each if config.each is None else config.each
        self._patch, self._flat = known.patch, flat
        if self._rule == "flat" and self._base:
            self._flat = round(self._base)
        numbers = f"{self._flat}" if self._rule == "flat" else f"{self._base:g}+{self._each:g}"
        self.label = f"{self._rule} {numbers}"

    def of_part(self, part: Mapping[str, Any]) -> int:
        """Return the tokens of a message part with an image; a large number if it has no size."""
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, Mapping) else image
        size = _size(url) if isinstance(url, str) and self._rule != "flat" else None
        size = size or _UNKNOWN_SIZE
        low = isinstance(image, Mapping) and image.get("detail") == "low"
        return self.of_size(*size, low=low)

    def of_size(self, width: int, height: int, *, low: bool = False) -> int:
        """Return an image's tokens by its size in pixels; `low` is OpenAI's `detail: low` (512)."""
        if self._rule == "openai_tiles":
            return math.ceil(self._base + (0 if low else self._each * _tiles(width, height)))
        if self._rule == "openai_patches":
            if low:
                width, height = _within(width, height, LOW_EDGE)
            return math.ceil(self._base + self._each * _patches(width, height))
        if self._rule == "gemini_tiles":
            return math.ceil(self._each * _crops(width, height))
        if self._rule == "anthropic":
            width, height = _within(width, height, 1568)
            return min(1600, math.ceil(width * height / 750))
        if self._rule == "qwen_vl":  # and a token before and after the image
            tokens = max(1, round(width / self._patch)) * max(1, round(height / self._patch))
            return min(16384, max(4, tokens)) + 2
        return self._flat


def _families() -> dict[str, _Numbers]:
    return load_table("image_tokens", dict[str, _Numbers])


def _family(model: str) -> _Numbers | None:
    name = model.rpartition("/")[2].lower()
    prefix = max((key for key in _families() if name.startswith(key)), key=len, default="")
    return _families().get(prefix)


def _most_expensive(rule: Rule) -> _Numbers | None:
    """Return the numbers of a rule's most expensive family, for a model of unknown name."""
    members = [each for each in _families().values() if each.rule == rule != "flat"]
    return max(members, key=lambda each: (each.each, -each.patch), default=None)


def _tiles(width: int, height: int) -> int:
    """Return tiles of 512 pixels: within 2048 square, then the shortest edge at most 768."""
    wide, high = _within(width, height, 2048)
    scale = min(1.0, 768 / min(wide, high))
    return math.ceil(round(wide * scale) / 512) * math.ceil(round(high * scale) / 512)


def _patches(width: int, height: int) -> int:
    """Return patches of 32 pixels, at most 1536: a larger image is scaled to fit."""
    return min(1536, math.ceil(width / 32) * math.ceil(height / 32))


def _crops(width: int, height: int) -> int:
    """Return Gemini's crops: one up to 384 pixels, else by a unit of the shorter edge over 1.5."""
    if max(width, height) <= 384:
        return 1
    unit = min(768, max(256, math.floor(min(width, height) / 1.5)))
    return math.ceil(width / unit) * math.ceil(height / unit)


def _within(width: int, height: int, edge: int) -> tuple[int, int]:
    scale = min(1.0, edge / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _size(url: str) -> tuple[int, int] | None:
    """Return width and height of a data URL's image; None for another URL or a broken image."""
    head, _, data = url[: _HEADER + 64].partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        return None
    whole = url[len(head) + 1 :]
    return _read_size(data[: len(data) // 4 * 4]) or (
        _read_size(whole) if len(whole) > len(data) else None
    )


def _read_size(data: str) -> tuple[int, int] | None:
    from PIL import Image

    from lavis.common.pixels import IMAGE_REFUSALS

    try:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            width, height = image.size
    except IMAGE_REFUSALS:  # binascii.Error is a ValueError
        return None
    return (width, height) if width > 0 and height > 0 else None
