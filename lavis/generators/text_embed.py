"""CLIP text vectors that stand in for an image's features: no image is made at all.

The fusion model then reads them as `vision_features` (its `vision.name` null, `vision.width` E).
Shapes: P tokens for one image, E width of CLIP's joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from lavis.common.registry import generators
from lavis.generators.base import FeaturesGenerator, ImageRequest
from lavis.generators.clip import ClipEncoder
from lavis.generators.config import TextEmbedConfig
from lavis.generators.words import content_words

_NO_VECTOR = {"model", "batch_size", "device"}  # the encoder says what it is and where it runs


@generators.register("text_embed")
class TextEmbedGenerator(FeaturesGenerator):
    """Unit text vectors `(P, E)`: of the prompt, or of its content words.

    With `of: words` the request with index i gets the P words from number i P on, starting again
    at the first, so that K requests of one prompt cover K P words; a prompt without content words
    is embedded whole.
    """

    name: ClassVar[str] = "text_embed"
    uses_seed: ClassVar[bool] = False

    def __init__(self, encoder: ClipEncoder, config: TextEmbedConfig) -> None:
        self.encoder = encoder
        self.config = config
        self.batch_size = config.batch_size
        self.shape = (config.num_tokens, encoder.width)

    @classmethod
    def from_config(cls, config: TextEmbedConfig) -> TextEmbedGenerator:
        """Load the CLIP model; `ConfigError` if it cannot be loaded."""
        return cls(ClipEncoder.from_pretrained(config.model, device=config.device), config)

    def fingerprint(self) -> dict[str, Any]:
        """Return what the encoder's vectors depend on, and what of a prompt is embedded."""
        options = {k: v for k, v in asdict(self.config).items() if k not in _NO_VECTOR}
        return {"name": self.name, **options, "encoder": self._encoder_fingerprint}

    @cached_property
    def _encoder_fingerprint(self) -> dict[str, Any]:
        return self.encoder.fingerprint()

    def release(self) -> None:
        """Take the encoder off its device."""
        self.encoder.release()

    def texts(self, request: ImageRequest) -> list[str]:
        """Return the P texts whose vectors a request gets."""
        words = content_words(request.prompt) if self.config.of == "words" else []
        words = words or [request.prompt]
        first = request.index * self.config.num_tokens
        return [words[(first + place) % len(words)] for place in range(self.config.num_tokens)]

    def generate(self, requests: Sequence[ImageRequest]) -> list[np.ndarray]:
        """Return `(P, E)` float32 for each request; an equal text is embedded once."""
        groups = [self.texts(request) for request in requests]
        distinct = list(dict.fromkeys(text for texts in groups for text in texts))
        if not distinct:
            return []
        vectors = self.encoder.embed_texts(distinct).cpu().numpy().astype(np.float32)
        place = {text: position for position, text in enumerate(distinct)}
        return [vectors[[place[text] for text in texts]] for texts in groups]
