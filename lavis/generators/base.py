"""What every generator shares: requests, and a description that keys its images in the cache.

An image is fixed by its generator, its prompt, an index that counts equal prompts, and a seed.
Shapes: P tokens of width D stand for one image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from lavis.common.errors import ConfigError
from lavis.generators.prompts import prompt_seed


class ImageRequest(NamedTuple):
    """One requested image: `index` counts those of the same prompt, `seed` is the run's."""

    prompt: str
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    seed: int = 0

    @property
    def random_seed(self) -> int:
        """The seed of this image's own random numbers, 0 to 2**63 - 1."""
        return prompt_seed(self.prompt, self.index, self.seed)


def image_requests(prompts: Iterable[str], seed: int = 0) -> list[ImageRequest]:
    """Number the prompts of one text: the first of equal prompts gets index 0, the next 1 ...

    So texts that share a sentence share its image, and K + 1 images contain the K ones.
    """
    counts: Counter[str] = Counter()
    requests = []
    for prompt in prompts:
        requests.append(ImageRequest(prompt, counts[prompt], seed))
        counts[prompt] += 1
    return requests


class Withheld(NamedTuple):
    """An image drawn but withheld by `reason`, such as `the pipeline's safety checker`."""

    reason: str


class Generator(ABC):
    """Source of what the image store keeps.

    Attributes:
        uses_seed: False where the seed changes nothing, so that runs share what is stored.
        batch_size: requests handed over at a time.
        credit: what must stand beside its images, or None.
        suited_scorer: registered name of the scorer for its images where none is chosen.
    """

    name: ClassVar[str]
    uses_seed: ClassVar[bool] = True
    credit: ClassVar[str | None] = None
    suited_scorer: ClassVar[str] = "clip"
    batch_size: int = 1

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any) -> Generator:
        """Build from the dataclass of this generator."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return everything that the output depends on besides the request; JSON-able."""

    def release(self) -> None:
        """Release what only drawing needs, such as a model on the GPU; drawing loads it again."""
        return

    def shows(self, prompt: str) -> bool | None:
        """Return whether something of a prompt is drawn, or None where that is unknown."""
        return None


class ImageGenerator(Generator):
    """Prompts to images."""

    @abstractmethod
    def generate(self, requests: Sequence[ImageRequest]) -> Sequence[Image.Image | Withheld]:
        """Return one RGB image for each request, whatever the others in the list are.

        An image that must not be shown is `Withheld`, always for the same request.

        Raises:
            DataError: an image cannot be had; the message names the prompt.
        """


class FeaturesGenerator(Generator):
    """Prompts to features as a vision tower makes them; `shape` is (P, D) for all requests."""

    shape: tuple[int, int]

    @abstractmethod
    def generate(self, requests: Sequence[ImageRequest]) -> list[np.ndarray]:
        """Return `(P, D)` float32 for each request."""


class ImageScorer(ABC):
    """Texts and images to similarities.

    Attributes:
        reads_images: False where the text alone says what the image shows.
        batch_size: pairs handed over at a time.
    """

    reads_images: ClassVar[bool] = True
    batch_size: int = 64

    @classmethod
    def from_config(cls, config: Any, generator: Generator) -> ImageScorer:
        """Build from a run's image section and generator; a scorer named in run files needs this.

        Raises:
            ConfigError: it cannot be named in a run file.
        """
        raise ConfigError(f"{cls.__name__} has no from_config, so no run file can name it")

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return everything that scores depend on besides text and image; JSON-able."""

    @abstractmethod
    def score(self, texts: Sequence[str], images: Sequence[Image.Image]) -> np.ndarray:
        """Return `(N,)` float32 in [0, 1] for pairs of text and image."""
