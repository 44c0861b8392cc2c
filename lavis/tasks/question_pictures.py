"""Pictures of benchmark questions: made, scored and encoded ahead, read back unit by unit.

Shapes: N distinct pictures of a unit, B rows, K pictures of a row, P tokens of width D, S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lavis.common.errors import DataError, RecordError
from lavis.common.logger import Progress
from lavis.generators.base import PictureRequest, picture_requests
from lavis.generators.build import build_scorer, build_store
from lavis.generators.config import PicturesConfig
from lavis.generators.prompts import image_prompts

if TYPE_CHECKING:
    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.datasets.benchmarks.question import Question

logger = logging.getLogger(__name__)

_CHUNK = 64  # pictures between two signs of life
PictureSet = tuple[PictureRequest, ...]


class QuestionPictures:
    """Pictures of every question of a data set.

    Args:
        config: section `run.pictures`, with `num_images` of 1 or more.
        per: `question` or `prompt`, who shares a set of pictures.
        keep_features: keep the tower's outputs beside the pictures.

    Attributes:
        skipped: row numbers of questions that need no pictures.
    """

    def __init__(
        self, config: PicturesConfig, per: Literal["question", "prompt"], *, keep_features: bool
    ) -> None:
        self.config, self._per, self._keep = config, per, keep_features
        self.store = build_store(config)
        self._scores: dict[PictureRequest, float] = {}
        self._tower: Any = None
        self.weighed = config.scorer is not None
        self.skipped: frozenset[int] = frozenset()

    def fingerprint(self) -> dict[str, Any]:
        """Return what pictures depend on besides questions."""
        return {"generator": self.store.generator.fingerprint(), "per": self._per}

    def sets(self, question: Question) -> list[PictureSet]:
        """Return the sets of a question: one, or one for each prompt; none where it is skipped.

        The anchor, which stands for the whole text, comes first: a single picture is that one.
        """
        if question.index in self.skipped:
            return []
        per_question = self._per == "question"
        texts = [question.picture_text] if per_question else question.picture_texts
        config = self.config
        found = []
        for text in texts:
            prompts = image_prompts(
                text,
                config.num_images,
                anchor_words=config.anchor_words,
                verbatim=config.prompt_rule == "verbatim",
            )
            found.append(tuple(picture_requests([prompts[-1], *prompts[:-1]], config.seed)))
        return found

    def prepare(self, model: Any, dataset: BenchmarkDataset, world: Any) -> None:
        """Make, encode and score what is missing, each process its share; all of them call this.

        Args:
            model: gives `encode_frozen` and `frozen_fingerprint`.
            world: gives `rank`, `size`, `beat` and `barrier`.
        """
        wanted = list(dict.fromkeys(self.requests(dataset)))
        share = wanted[world.rank :: world.size]
        made = self._fill(share, world)
        world.barrier("pictures made")
        logger.info("%d distinct pictures, %d of this process's are new", len(wanted), made)
        if self._keep and not self.store.makes_features:
            self._tower = [model.frozen_fingerprint(), dataset.vis_processor.describe()]
            self._encode(share, model, dataset, world)
        scorer = build_scorer(self.config, self.store.generator)
        if scorer is not None:
            for start in range(0, len(share), _CHUNK):
                self.store.scores(share[start : start + _CHUNK], scorer)
                world.beat("scores of pictures")
            world.barrier("pictures scored")
            values = self.store.scores(wanted, scorer).tolist()
            self._scores = dict(zip(wanted, values, strict=True))
        world.barrier("pictures ready")

    def requests(self, dataset: BenchmarkDataset) -> Iterable[PictureRequest]:
        """Yield every picture that the questions of a data set are asked with."""
        for index in range(len(dataset)):
            try:
                question = dataset.question(index)
            except RecordError:
                continue
            for requests in self.sets(question):
                yield from requests

    def _fill(self, share: Sequence[PictureRequest], world: Any) -> int:
        progress = Progress(len(share), "pictures", unit="pictures", shown=world.rank == 0)
        made = 0
        for start in range(0, len(share), _CHUNK):
            part = share[start : start + _CHUNK]
            made += self.store.fill(part, rank=0, world_size=1, progress=False).made
            progress.add(len(part))
            world.beat("pictures")
        progress.close()
        return made

    def _encode(
        self, share: Sequence[PictureRequest], model: Any, dataset: BenchmarkDataset, world: Any
    ) -> None:
        import torch

        store = self.store
        has = [store.features(store.key(*request), self._tower) is not None for request in share]
        missing = [request for request, there in zip(share, has, strict=True) if not there]
        progress = Progress(
            len(missing), "features of pictures", unit="pictures", shown=world.rank == 0
        )
        for start in range(0, len(missing), _CHUNK):
            part = missing[start : start + _CHUNK]
            pictures = [dataset.process(picture) for picture in store.pictures(part)]
            with torch.no_grad():
                encoded = model.encode_frozen(torch.stack(pictures)).float().cpu().numpy()
            for request, features in zip(part, encoded, strict=True):
                store.put_features(store.key(*request), self._tower, features)
            progress.add(len(part))
            world.beat("features of pictures")
        progress.close()

    def score(self, request: PictureRequest) -> float | None:
        """Return how well a picture shows its prompt, or None where nothing scores."""
        return self._scores.get(request)

    def shown(self, sets: Sequence[PictureSet]) -> bool | None:
        """Return whether a picture shows something of its prompt, or None where nobody can tell."""
        generator = self.store.generator
        found = [generator.shows(request.prompt) for one in sets for request in one]
        return None if None in found else any(found)

    def load(self, requests: Sequence[PictureRequest], dataset: BenchmarkDataset) -> dict[str, Any]:
        """Return `vision_features` `(N, P, D)`, or `image` `(N, 3, S, S)` without kept features.

        Raises:
            RecordError: a picture or its features are gone from the cache.
        """
        import torch

        store = self.store
        try:
            if store.makes_features:
                return {"vision_features": torch.from_numpy(store.text_features(requests))}
            if not self._keep:
                pictures = [store.picture(store.key(*request)) for request in requests]
                return {"image": torch.stack([dataset.process(p) for p in pictures])}
        except DataError as error:
            raise RecordError(str(error)) from None
        found = []
        for request in requests:
            features = store.features(store.key(*request), self._tower)
            if features is None:
                raise RecordError(f"missing features of a picture: {request.prompt[:60]}")
            found.append(features)
        return {"vision_features": torch.from_numpy(np.stack(found))}


def others(
    dataset: BenchmarkDataset, index: int, skipped: frozenset[int] = frozenset()
) -> Question:
    """Return a question about something else, the same one each time: half a data set further.

    Those that have no pictures (`skipped`) are passed over.
    """
    question = dataset.question(index)
    count = len(dataset)
    for step in range(count):
        try:
            found = dataset.question((index + count // 2 + step) % count)
        except RecordError:
            continue
        if found.picture_text != question.picture_text and found.index not in skipped:
            return found
    return question
