"""What families of vision-language models differ in: `lavis/configs/vlm/families.yaml`."""

from __future__ import annotations

import functools
from typing import Literal

import yaml
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from lavis.common.config.fields import CONFIG_ROOT, STRICT

TABLE = CONFIG_ROOT / "vlm" / "families.yaml"
UNKNOWN = "the family is not in lavis/configs/vlm/families.yaml"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VlmFamily:
    """A row of the table.

    Attributes:
        branches: from where texts continue a key/value cache: `after_images` (from any token behind
            the last image), `never`.
        why: why it never branches.
        positions: of a branch's tokens: `plain` (they count on), `rope_deltas` (three axes, behind
            images moved by what the model computed for the prompt's beginning), `none` (the model
            takes no positions and counts from its cache).
        pixels: what bounds an image's size: `area` (`model.min_pixels`, `model.max_pixels`), or
            `fixed` (the processor's own rule).
        joins: prompts of which images may stand side by side in one pass: `alike` (the processor
            makes as many values of each), `any` (what it makes of them is joined end to end),
            `same` (it numbers what it makes of an image, so that others would be mistaken for it).
        images: how many one prompt may hold.
        prompt: the prompt of a processor without a chat template, with `{images}` and `{text}`.
        image: what stands for one image in `prompt`; empty where the processor puts it there.
        behind: type (`token_type_ids`) of tokens behind the prompt.
        refused: why the family cannot be used.
        is_known: the table has the family. Of another one it is not known what its processor makes
            of the text, so every prompt goes through it, and alone through the model.
    """

    branches: Literal["after_images", "never"] = "never"
    why: str = UNKNOWN
    positions: Literal["plain", "rope_deltas", "none"] = "plain"
    pixels: Literal["area", "fixed"] = "fixed"
    joins: Literal["same", "alike", "any"] = "alike"
    images: Literal["many", "one"] = "many"
    prompt: str = "USER: {images}\n{text} ASSISTANT:"
    image: str = "<image>"
    behind: int = 0
    refused: str = ""
    is_known: bool = True


@functools.lru_cache(maxsize=1)
def families() -> dict[str, VlmFamily]:
    """Return model type -> its row."""
    rows = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, VlmFamily]).validate_python(rows)


def family_of(model_type: str) -> VlmFamily:
    """Return a family's row; one that is not in the table never branches."""
    return families().get(model_type, VlmFamily(is_known=False))
