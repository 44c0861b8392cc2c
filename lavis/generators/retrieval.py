"""Images whose captions are nearest to a prompt; index i is the i-th nearest image.

Shapes: M captions, N prompts, E width of a text vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from lavis.common.registry import generators
from lavis.common.storage.content import content_digest
from lavis.generators.base import ImageGenerator, ImageRequest
from lavis.generators.captions import CaptionedImages
from lavis.generators.config import RetrievalConfig
from lavis.generators.image_files import files_identity

# Options whose part in the images is told by content, or that have none.
_NO_PIXELS = {"records", "image_root", "clip_model", "batch_size", "device"}
_BLOCK = 4_000_000  # similarities in memory at a time
_DECIMALS = 6  # similarities that differ by less tie, so that rounding cannot change the order

EmbedTexts = Callable[[Sequence[str]], np.ndarray]


class TextIndex(Protocol):
    """Captions that prompts are compared with."""

    def similarity(self, prompts: Sequence[str]) -> np.ndarray:
        """Return `(N, M)`."""

    def release(self) -> None:
        """Take what compares texts off its device."""

    def fingerprint(self) -> dict[str, Any]:
        """Return how texts are compared; JSON-able."""


class TfidfIndex:
    """Cosine of TF-IDF vectors of lower-case words.

    A word weighs `(1 + ln tf) (1 + ln((1 + M) / (1 + df)))`; df captions out of M hold it.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(
            sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", dtype=np.float64
        )
        self._captions = self._vectorizer.fit_transform([*captions])

    def similarity(self, prompts: Sequence[str]) -> np.ndarray:
        """Return `(N, M)`; 0 where no word is shared."""
        return (self._vectorizer.transform(prompts) @ self._captions.T).toarray()

    def release(self) -> None:
        """Do nothing: it is in memory."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the kind of index; its weights are a function of the captions."""
        return {"similarity": "tfidf"}


class EmbeddingIndex:
    """Dot products of unit text vectors, such as CLIP's."""

    def __init__(
        self,
        captions: Sequence[str],
        embed: EmbedTexts,
        identity: Any,
        *,
        batch_size: int = 64,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._embed, self._identity, self.release = embed, identity, release
        parts = [
            embed(captions[start : start + batch_size])
            for start in range(0, len(captions), batch_size)
        ]
        self._captions = np.concatenate(parts)  # (M, E)

    def similarity(self, prompts: Sequence[str]) -> np.ndarray:
        """Return `(N, M)`."""
        return self._embed(prompts) @ self._captions.T

    def fingerprint(self) -> dict[str, Any]:
        """Return the kind of index and whose vectors they are."""
        return {"similarity": "embedding", "of": self._identity}


@generators.register("retrieval")
class RetrievalGenerator(ImageGenerator):
    """Finds images by their captions; the same prompts always give the same images.

    An image with several captions counts by its nearest one. Equal similarities keep the order of
    the records. More images than there are start again at the nearest.
    """

    name: ClassVar[str] = "retrieval"
    uses_seed: ClassVar[bool] = False

    def __init__(self, images: CaptionedImages, index: TextIndex, *, batch_size: int = 64) -> None:
        self.pictures = images
        self.index = index
        self.batch_size = batch_size

    @classmethod
    def from_config(cls, config: RetrievalConfig) -> RetrievalGenerator:
        """Read the captions and index them.

        Raises:
            DataError: no records, no captions, or no folder.
            ConfigError: the CLIP model cannot be loaded.
        """
        images = CaptionedImages(config)
        if config.similarity == "tfidf":
            return cls(images, TfidfIndex(images.captions), batch_size=config.batch_size)
        from lavis.generators.clip import ClipEncoder

        encoder = ClipEncoder.from_pretrained(config.clip_model, device=config.device)
        index = EmbeddingIndex(
            images.captions,
            lambda texts: encoder.embed_texts(texts).cpu().numpy(),
            encoder.fingerprint(),
            batch_size=config.batch_size,
            release=encoder.release,
        )
        return cls(images, index, batch_size=config.batch_size)

    def fingerprint(self) -> dict[str, Any]:
        """Return what records, images and fields are, and how texts are compared."""
        options = {k: v for k, v in asdict(self.pictures.config).items() if k not in _NO_PIXELS}
        return {
            "name": self.name,
            **options,
            "records": content_digest(self.pictures.path),
            "pictures": files_identity(self.pictures.root, self.pictures.file_names()),
            **self.index.fingerprint(),
        }

    def release(self) -> None:
        """Take the index's encoder off its device."""
        self.index.release()

    def nearest(self, prompts: Sequence[str], count: int) -> list[list[int]]:
        """Return the rows of the `count` nearest images of each prompt, nearest first."""
        found: list[list[int]] = []
        size = max(1, _BLOCK // len(self.pictures.captions))
        for start in range(0, len(prompts), size):
            for similarity in self.index.similarity(prompts[start : start + size]):
                found.append(self._order(np.round(similarity, _DECIMALS))[:count].tolist())
        return found

    def _order(self, similarity: np.ndarray) -> np.ndarray:
        """Return the rows that have a caption by their nearest one, from similarities `(M,)`."""
        best = np.full(len(self.pictures), -np.inf)
        np.maximum.at(best, self.pictures.row_of_caption, similarity)
        return np.argsort(-best, kind="stable")[: self.pictures.has_caption.sum()]

    def generate(self, requests: Sequence[ImageRequest]) -> list[Image.Image]:
        """Return the images that the requests' indices count off by nearness.

        Raises:
            DataError: an image is missing or cannot be read.
        """
        wanted: dict[str, int] = {}
        for request in requests:
            wanted[request.prompt] = max(wanted.get(request.prompt, 0), request.index + 1)
        if not wanted:
            return []
        ranked = dict(zip(wanted, self.nearest(list(wanted), max(wanted.values())), strict=True))
        return [
            self.pictures.read(ranked[r.prompt][r.index % len(ranked[r.prompt])]) for r in requests
        ]
