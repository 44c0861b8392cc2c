"""Prompts from jinja2 files: notes about an image in, messages out; data stays quoted."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from lavis.common.config.fields import CONFIG_ROOT
from lavis.common.errors import ConfigError
from lavis.common.text import shorten
from lavis.llm.base import Message

FOLDER = CONFIG_ROOT / "prompts" / "qar"
# Of requests with images: they win over those of `FOLDER`, which say that none is seen. Apart from
# it, because the identity of requests without images is a hash of every file in it.
IMAGES_FOLDER = CONFIG_ROOT / "prompts" / "qar_images"
STYLES = {"ids": "region_ids.jinja", "descriptions": "region_descriptions.jinja"}
MAX_QUOTED = 400  # characters of one text in the notes
_ROUND = str.maketrans("[]［］【】〔〕〚〛⟦⟧", "()" * 6)  # what names regions in a reply


def quote(text: object) -> str:
    """Return a text as one JSON string on one line, which nothing inside can end.

    Square brackets become round ones, so that no text can name a region.
    """
    clean = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(text)).strip()
    clean = shorten(clean, MAX_QUOTED).translate(_ROUND)
    return json.dumps(clean.encode("utf-8", "replace").decode(), ensure_ascii=False)


class Prompts:
    """The templates of a folder.

    Args:
        folder: `system`, `repair` and one file for each style, as in `lavis/configs/prompts/qar`.
        images: the requests carry images.

    Raises:
        ConfigError: a template is missing or malformed.
    """

    def __init__(self, folder: str | Path | None = None, *, images: bool = False) -> None:
        shipped = [IMAGES_FOLDER, FOLDER] if images else [FOLDER]
        self.folder = Path(folder or shipped[0])
        self._jinja = Environment(
            loader=FileSystemLoader([self.folder, *shipped]),
            undefined=StrictUndefined,
            autoescape=False,  # plain text; `quote` is what keeps data apart
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
        )
        self._jinja.filters["quote"] = quote
        try:
            self._templates = {
                name: self._jinja.get_template(f"{name}.jinja")
                for name in ("system", "repair", "region_ids", "region_descriptions")
            }
        except TemplateError as error:
            raise ConfigError(f"generate.prompt_dir: {self.folder}: {error}") from None

    def identity(self) -> str:
        """Return a hash of every template."""
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self._jinja.list_templates(extensions=["jinja"])):
            source, _, _ = self._jinja.loader.get_source(self._jinja, name)  # type: ignore[union-attr]
            digest.update(f"{name}\0{source}\0".encode())
        return digest.hexdigest()

    def messages(
        self, style: str, values: Mapping[str, Any], images: Sequence[Mapping[str, Any]] = ()
    ) -> list[Message]:
        """Return the messages about a scene; raises `ConfigError` for a template's unknown name.

        Args:
            images: message parts, which come before the user's text.
        """
        name = STYLES[style].removesuffix(".jinja")
        text = self._render(name, {**values, "style": style})
        parts = [*images, {"type": "text", "text": text}]
        return [
            {"role": "system", "content": self._render("system", {**values, "style": style})},
            {"role": "user", "content": parts if images else text},
        ]

    def repair(self, problem: str) -> Message:
        """Return the message that requests a usable reply."""
        return {"role": "user", "content": self._render("repair", {"problem": problem})}

    def instructions(self, style: str) -> str:
        """Return the words of the templates themselves, which a reply must not repeat."""
        names = ("system.jinja", STYLES[style])
        sources = [self._jinja.loader.get_source(self._jinja, name)[0] for name in names]  # type: ignore[union-attr]
        return re.sub(r"\{[%{].*?[%}]\}", " | ", " | ".join(sources), flags=re.DOTALL)

    def _render(self, name: str, values: Mapping[str, Any]) -> str:
        try:
            text = self._templates[name].render(values)
        except TemplateError as error:
            raise ConfigError(f"{self.folder}/{name}.jinja: {error}") from None
        return re.sub(r"\n{3,}", "\n\n", text).strip()
