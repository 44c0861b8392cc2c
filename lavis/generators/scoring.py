"""How well an image shows its prompt, 0 to 1: the weight it gets when answers are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lavis.common.registry import scorers
from lavis.generators.base import Generator, ImageScorer
from lavis.generators.clip import ClipEncoder
from lavis.generators.config import ImagesConfig


@scorers.register("clip")
class ClipScorer(ImageScorer):
    """`max(cosine, 0)` of CLIP's image and text vectors.

    Texts of more than 77 tokens keep their start and their end token. `compat="released"` gives the
    numbers of the published evaluation code, whose text side was faulty (see `ClipEncoder`).
    """

    def __init__(self, encoder: ClipEncoder, *, batch_size: int = 64) -> None:
        self.encoder = encoder
        self.batch_size = batch_size

    @classmethod
    def from_config(cls, config: ImagesConfig, generator: Generator) -> ClipScorer:
        """Load `config.clip_model` for any generator; `ConfigError` if missing or not CLIP."""
        compat = config.clip_compat
        return cls.from_pretrained(config.clip_model, device=config.device, compat=compat)

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str = "auto", compat: Literal["released"] | None = None
    ) -> ClipScorer:
        """Load CLIP by Hugging Face id or folder; `ConfigError` if missing or not a CLIP model."""
        return cls(ClipEncoder.from_pretrained(name, device=device, compat=compat))

    def fingerprint(self) -> dict[str, Any]:
        """Return the name `clip` and the encoder's fingerprint, hashed once."""
        return {"name": "clip", **self._encoder_fingerprint}

    @cached_property
    def _encoder_fingerprint(self) -> dict[str, Any]:
        return self.encoder.fingerprint()

    def score(self, texts: Sequence[str], images: Sequence[Image.Image]) -> np.ndarray:
        """Return `(N,)` float32 in [0, 1]; an equal text is embedded once."""
        if not texts:
            return np.zeros(0, dtype=np.float32)
        distinct = list(dict.fromkeys(texts))
        place = {text: position for position, text in enumerate(distinct)}
        text_vectors = self.encoder.embed_texts(distinct)[[place[text] for text in texts]]
        image_vectors = self.encoder.embed_images(images)
        return similarity(text_vectors, image_vectors).cpu().numpy()


def similarity(text_vectors: Tensor, image_vectors: Tensor) -> Tensor:
    """Return `max(cosine, 0)` `(N,)` of pairs of unit vectors `(N, E)`."""
    return torch.clamp((text_vectors * image_vectors).sum(dim=-1), 0, 1)
