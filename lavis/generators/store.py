"""Images on disk with their features and scores: drawn once, for any number of runs and ranks.

An entry's key names the generator, the prompt, the index and the seed, so it never goes stale. Two
processes that draw one image at a time write the same entry, and none is read half-written. An
image that its generator withholds leaves a mark in its place, so that it is not drawn again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from lavis.common import dist
from lavis.common.errors import ConfigError, DataError
from lavis.common.logger import Progress
from lavis.common.pixels import to_rgb
from lavis.common.storage.cache import Cache, make_key
from lavis.generators.base import (
    FeaturesGenerator,
    Generator,
    ImageRequest,
    ImageScorer,
    Withheld,
)

VERSION = 1  # of the stored form


@dataclass(frozen=True)
class FillReport:
    """What one process's share of a fill came to.

    Attributes:
        share: distinct requests of this process.
        made: of them, those that were missing and are stored now.
        withheld: of them, those that their generator does not hand out, now or at an earlier fill.
    """

    share: int
    made: int
    withheld: int = 0


class ImageStore:
    """What a generator makes, kept in a cache.

    Args:
        cache: shared by all runs.
        generator: makes what is missing.
        size: images are reduced to this shortest edge, pixels, before they are stored.
        format: `webp` or `png`, both lossless.
    """

    def __init__(
        self,
        cache: Cache,
        generator: Generator,
        *,
        size: int | None = None,
        format: Literal["webp", "png"] = "webp",
    ) -> None:
        self.cache = cache
        self.generator: Any = generator
        self.size = size
        self.format = format
        self._fingerprint = generator.fingerprint()
        # whether requests give features (`text_embed`) instead of images
        self.makes_features = isinstance(generator, FeaturesGenerator)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator's means of drawing behind: loader processes only read."""
        return {**self.__dict__, "generator": _Elsewhere(self.generator)}

    def fingerprint(self) -> dict[str, Any]:
        """Return what the generator's images depend on, as it was when the store was made."""
        return self._fingerprint

    def key(self, prompt: str, index: int = 0, seed: int = 0) -> str:
        """Return the key of one image (or of what stands for it); `key(*request)` works."""
        kind = "text_features" if self.makes_features else "picture"
        stored = {} if self.makes_features else {"size": self.size, "format": self.format}
        return make_key(
            kind,
            VERSION,
            generator=self._fingerprint,
            prompt=prompt,
            index=index,
            seed=seed if self.generator.uses_seed else None,
            **stored,
        )

    def missing(
        self, requests: Sequence[ImageRequest], *, verify: bool = False
    ) -> list[ImageRequest]:
        """Return distinct requests not stored, in order; with `verify`, damaged ones as well."""
        distinct = _distinct(requests)
        if verify:
            there = [self.cache.get(self.key(*r)) is not None for r in distinct]
        else:
            there = [self.key(*r) in self.cache for r in distinct]
        lost = [r for r, is_there in zip(distinct, there, strict=True) if not is_there]
        return [r for r in lost if not self.is_withheld(r)]

    def is_withheld(self, request: ImageRequest) -> bool:
        """Return whether an image was drawn and is not handed out."""
        return _mark_of(self.key(*request)) in self.cache

    def fill(
        self,
        requests: Sequence[ImageRequest],
        *,
        rank: int | None = None,
        world_size: int | None = None,
        progress: bool = True,
        verify: bool = False,
    ) -> FillReport:
        """Make and store what is missing of this process's share.

        Every process is given all requests; the distinct ones are dealt out in turn, so a killed
        fill goes on where it stopped, on any number of processes. Wait for the others after it.

        Args:
            rank: of this process (None: the launcher's).
            world_size: number of processes (None: the launcher's).
            progress: log how far it is, on rank 0.
            verify: also make again what is damaged.

        Raises:
            DataError: an image cannot be had.
        """
        rank = dist.rank() if rank is None else rank
        world_size = dist.world_size() if world_size is None else world_size
        share = _distinct(requests)[rank::world_size]
        todo = self.missing(share, verify=verify)
        what = "text features" if self.makes_features else "images"
        meter = Progress(
            len(share),
            what,
            unit=what,
            done=len(share) - len(todo),
            shown=progress and rank == 0 and bool(todo),
        )
        size = max(1, self.generator.batch_size)
        for start in range(0, len(todo), size):
            batch = todo[start : start + size]
            self._make(batch)
            meter.add(len(batch))
        meter.close()
        withheld = 0 if self.makes_features else sum(map(self.is_withheld, share))
        made = len(todo) - sum(map(self.is_withheld, todo))
        return FillReport(share=len(share), made=made, withheld=withheld)

    def image(self, key: str) -> Image.Image:
        """Return a stored RGB image; `DataError` if it is not stored, damaged or withheld."""
        image = self._read(key)
        if image is None:
            reason = self.cache.get(_mark_of(key))
            if reason is not None:
                raise DataError(f"withheld image: by {reason.decode()}")
            raise DataError(
                f"{self.cache.root}: image {key} is not stored, or damaged; draw it with "
                "scripts/generate_images.py --verify"
            )
        return image

    def images(self, requests: Sequence[ImageRequest]) -> list[Image.Image]:
        """Return images, making missing and damaged ones; a withheld one is a `DataError`."""
        if self.makes_features:
            raise ConfigError(f"generator '{self.generator.name}' makes features, no images")
        stored = {request: self._read(self.key(*request)) for request in _distinct(requests)}
        lost = [request for request, image in stored.items() if image is None]
        self._make([request for request in lost if not self.is_withheld(request)])
        stored |= {request: self.image(self.key(*request)) for request in lost}
        return [image for r in requests if (image := stored[r]) is not None]

    def text_features(self, requests: Sequence[ImageRequest]) -> np.ndarray:
        """Return `(N, P, D)` float32 of a features generator, making here what is missing."""
        if not self.makes_features:
            raise ConfigError(
                f"generator '{self.generator.name}' makes images; encode them with a tower"
            )
        self._make(self.missing(requests, verify=True))
        stored = [self.cache.get_array(self.key(*request)) for request in requests]
        arrays = [array for array in stored if array is not None]
        assert len(arrays) == len(requests)
        return np.stack(arrays) if arrays else np.zeros((0, *self._shape()), dtype=np.float32)

    def features(self, key: str, tower: Any) -> np.ndarray | None:
        """Return an image's stored features `(P, D)`, or None.

        Args:
            key: the image's.
            tower: fingerprint of the vision tower and of the image processing; JSON-able.
        """
        return self.cache.get_array(self._features_key(key, tower))

    def has_features(self, key: str, tower: Any) -> bool:
        """Return whether an image's features are stored; only reading tells if they are whole."""
        return self._features_key(key, tower) in self.cache

    def drop_features(self, key: str, tower: Any) -> None:
        """Forget an image's features, so that the next start computes them anew."""
        self.cache.path(self._features_key(key, tower)).unlink(missing_ok=True)

    def put_features(self, key: str, tower: Any, features: np.ndarray) -> None:
        """Store an image's features `(P, D)`."""
        self.cache.put_array(self._features_key(key, tower), features)

    def scores(
        self,
        requests: Sequence[ImageRequest],
        scorer: ImageScorer,
        texts: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Return `(N,)` float32 similarities in [0, 1], computing and storing the missing ones.

        A withheld image's is 0.

        Args:
            requests: images; they are made where they are missing.
            scorer: compares them with texts.
            texts: one for each request (None: the prompt that the image was drawn from).
        """
        texts = [request.prompt for request in requests] if texts is None else list(texts)
        if not scorer.reads_images:
            return scorer.score(texts, ())
        identity = scorer.fingerprint()
        keys = [
            make_key("score", VERSION, picture=self.key(*request), text=text, scorer=identity)
            for request, text in zip(requests, texts, strict=True)
        ]
        known = {key: self.cache.get_array(key) for key in dict.fromkeys(keys)}
        todo = [p for p in range(len(keys)) if known[keys[p]] is None]
        self._make(self.missing([requests[p] for p in todo]))
        for place in [p for p in todo if self.is_withheld(requests[p])]:
            known[keys[place]] = np.zeros((), dtype=np.float32)
        todo = [p for p in todo if known[keys[p]] is None]
        todo = list({keys[p]: p for p in reversed(todo)}.values())[::-1]
        for start in range(0, len(todo), scorer.batch_size):
            part = todo[start : start + scorer.batch_size]
            images = self.images([requests[p] for p in part])
            for position, score in zip(
                part, scorer.score([texts[p] for p in part], images), strict=True
            ):
                known[keys[position]] = np.asarray(score, dtype=np.float32)
                self.cache.put_array(keys[position], np.asarray(score, dtype=np.float32))
        return np.array([known[key] for key in keys], dtype=np.float32)

    def _shape(self) -> tuple[int, int]:
        return self.generator.shape

    def _read(self, key: str) -> Image.Image | None:
        content = self.cache.get(key)
        if content is None:
            return None
        with Image.open(io.BytesIO(content)) as image:
            return image.convert("RGB")

    def _features_key(self, key: str, tower: Any) -> str:
        return make_key("vision_features", VERSION, picture=key, tower=tower)

    def _make(self, requests: Sequence[ImageRequest]) -> None:
        size = max(1, self.generator.batch_size)
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            for request, output in zip(batch, self.generator.generate(batch), strict=True):
                key = self.key(*request)
                if isinstance(output, Withheld):
                    self.cache.put(_mark_of(key), output.reason.encode())
                elif self.makes_features:
                    self.cache.put_array(key, output)
                else:
                    self.cache.put(key, self._encode(output))

    def _encode(self, image: Image.Image) -> bytes:
        image = to_rgb(image)
        short = min(image.size)
        if self.size is not None and short > self.size:
            width, height = (max(1, round(edge * self.size / short)) for edge in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        if self.format == "webp":
            image.save(buffer, "WEBP", lossless=True, quality=50, method=2)
        else:
            image.save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()


class _Elsewhere:
    """A generator in other processes: its description, without the means of drawing."""

    def __init__(self, generator: Generator | _Elsewhere) -> None:
        self.name: str = generator.name
        self.uses_seed: bool = generator.uses_seed
        self.batch_size: int = generator.batch_size
        self.credit: str | None = generator.credit
        self.shape = getattr(generator, "shape", None)

    def generate(self, requests: Sequence[ImageRequest]) -> Any:
        """Raise: images are drawn before loader processes start."""
        raise DataError(
            f"{len(requests)} images of generator '{self.name}' are not stored, first of "
            f"{requests[0].prompt[:80]!r}; start again to draw them"
        )

    def release(self) -> None:
        """Do nothing: nothing is held."""


def _mark_of(key: str) -> str:
    """Return the key of the mark that stands for a withheld image."""
    return make_key("withheld", VERSION, picture=key)


def _distinct(requests: Sequence[ImageRequest]) -> list[ImageRequest]:
    return list(dict.fromkeys(ImageRequest(*request) for request in requests))
