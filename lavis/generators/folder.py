"""Ready images, looked up by prompt.

Without a manifest the files of a prompt are `NAME.png`, `NAME-0.png`, `NAME-1.png`, ... or lie in
a folder `NAME/`, in the order of their names. NAME is the prompt's hash (`prompt_hash`) or its
words in lower case, joined by `_` (`prompt_name`), such as `a_photo_of_a_banana-0.png`.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from lavis.common.errors import DataError, printable
from lavis.common.pixels import is_image
from lavis.common.registry import generators
from lavis.common.storage.content import content_digest
from lavis.generators.base import ImageGenerator, ImageRequest
from lavis.generators.config import FolderConfig
from lavis.generators.image_files import (
    decode,
    existing_folder,
    files_identity,
    inside,
    read_json_lines,
)

logger = logging.getLogger(__name__)

_NAME_LENGTH = 120
_NO_PIXELS = {"root", "batch_size"}  # covered by the content's hash, or without effect


def prompt_hash(prompt: str) -> str:
    """Return the first 16 hexadecimal digits of the prompt's SHA-256."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def prompt_name(prompt: str) -> str:
    """Return the prompt's words in lower case, joined by `_`, at most 120 characters."""
    return "_".join(re.findall(r"[^\W_]+", prompt.lower()))[:_NAME_LENGTH]


@generators.register("folder")
class FolderGenerator(ImageGenerator):
    """Hands out images of a folder; index i of a prompt is its i-th file."""

    name: ClassVar[str] = "folder"
    uses_seed: ClassVar[bool] = False

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        self.batch_size = config.batch_size
        self.root = existing_folder(config.root, "folder generator, root")
        self._manifest = Path(config.manifest).expanduser() if config.manifest else None
        if self._manifest is None:
            self._files = _files_by_name(self.root)
        else:
            self._files = _files_of_manifest(self._manifest)

    @classmethod
    def from_config(cls, config: FolderConfig) -> FolderGenerator:
        """Read folder names or the manifest; `DataError` if it is missing or a line is wrong."""
        return cls(config)

    def fingerprint(self) -> dict[str, Any]:
        """Return the options, and what the files and the manifest hold."""
        options = {k: v for k, v in asdict(self.config).items() if k not in _NO_PIXELS}
        names = {name for names in self._files.values() for name in names}
        return {
            "name": self.name,
            **options,
            "files": files_identity(self.root, names),
            "manifest": content_digest(self._manifest) if self._manifest else None,
        }

    def generate(self, requests: Sequence[ImageRequest]) -> list[Image.Image]:
        """Return the ready images; `DataError` if a prompt has too few, or one cannot be read."""
        return [self._image(request) for request in requests]

    def _image(self, request: ImageRequest) -> Image.Image:
        names = self._names(request.prompt)
        index = request.index
        if not names or (index >= len(names) and self.config.missing == "error"):
            raise DataError(
                f"{self.root}: {len(names)} images of the prompt {request.prompt[:200]!r}, "
                f"number {index + 1} is wanted; {self._advice(request)}"
            )
        name = names[index % len(names)]
        return decode(inside(self.root, name).read_bytes(), name)

    def _names(self, prompt: str) -> list[str]:
        if self._manifest is not None:
            return self._files.get(prompt, [])
        hashed = self._files.get(prompt_hash(prompt), [])
        return hashed or self._files.get(prompt_name(prompt), [])

    def _advice(self, request: ImageRequest) -> str:
        repeat = "" if not self._names(request.prompt) else ", or set missing: repeat"
        if self._manifest is not None:
            return f"add it to {self._manifest}{repeat}"
        return f"add {prompt_hash(request.prompt)}-{request.index}.png{repeat}"


def _files_by_name(root: Path) -> dict[str, list[str]]:
    """Return NAME -> files, from `NAME.png`, `NAME-3.png` and `NAME/any.png`."""
    by_name: dict[str, list[tuple[int, str]]] = defaultdict(list)
    skipped: list[str] = []
    for path in root.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            inner = sorted(p.name for p in path.iterdir() if is_image(p.name))
            by_name[path.name] += [
                (place, f"{path.name}/{name}") for place, name in enumerate(inner)
            ]
        elif is_image(path.name):
            numbered = re.fullmatch(r"(.+)-(\d+)", path.stem)
            name, place = (numbered[1], int(numbered[2])) if numbered else (path.stem, -1)
            by_name[name].append((place, path.name))
        else:
            skipped.append(path.name)
    if skipped:
        shown = printable(", ".join(sorted(skipped)[:3]))
        logger.info("%s: %d files are no images, passed over (%s)", root, len(skipped), shown)
    return {name: [file for _, file in sorted(files)] for name, files in by_name.items()}


def _files_of_manifest(manifest: Path) -> dict[str, list[str]]:
    files: dict[str, list[str]] = defaultdict(list)
    for number, record in read_json_lines(manifest):
        images = record.get("images", record.get("image"))
        images = [images] if isinstance(images, str) else images
        prompt = record.get("prompt")
        is_list = isinstance(images, list) and all(isinstance(image, str) for image in images)
        if not isinstance(prompt, str) or not isinstance(images, list) or not is_list:
            raise DataError(
                f'{manifest}, line {number}: write {{"prompt": "...", "images": ["file", ...]}}'
            )
        files[prompt] += images
    return dict(files)
