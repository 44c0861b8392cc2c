"""Images of benchmark questions: generated, scored and encoded ahead, read back unit by unit.

Shapes: N distinct images of a unit, B rows, K images of a row, P tokens of width D, S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lavis.common.errors import DataError, RecordError
from lavis.common.logger import Progress
from lavis.common.storage.content import folder_digest
from lavis.generators.base import ImageRequest, image_requests
from lavis.generators.build import build_scorer, build_store, placed
from lavis.generators.config import ImagesConfig
from lavis.generators.prompts import image_prompts

if TYPE_CHECKING:
    from lavis.common.dist import World
    from lavis.datasets.benchmarks.dataset import BenchmarkDataset
    from lavis.datasets.benchmarks.question import Question
    from lavis.tasks.base import LateFusionModel

logger = logging.getLogger(__name__)

_CHUNK = 64  # images between two heartbeats
ImageSet = tuple[ImageRequest, ...]


class QuestionImages:
    """Images of every question of a data set.

    Args:
        config: section `run.images`, with `num_images` of 1 or more.
        per: `question` or `prompt`, who shares a set of images.
        keep_features: keep the tower's outputs beside the images.

    Attributes:
        skipped: row numbers of questions that need no images.
        withheld: images that the generator drew and does not return; questions have fewer then.
    """

    def __init__(
        self, config: ImagesConfig, per: Literal["question", "prompt"], *, keep_features: bool
    ) -> None:
        self.config = config = placed(config)
        self._per, self._keep = per, keep_features
        self.store = build_store(config)
        self._scores: dict[ImageRequest, float] = {}
        self._tower: Any = None
        self.weighed = config.scorer is not None
        self.skipped: frozenset[int] = frozenset()
        self.withheld: frozenset[ImageRequest] = frozenset()

    def fingerprint(self) -> dict[str, Any]:
        """Return what images depend on besides questions."""
        parts: dict[str, Any] = {"generator": self.store.fingerprint(), "per": self._per}
        folder = Path(self.config.clip_model).expanduser()
        if self.config.scorer == "clip" and folder.is_dir():
            parts["clip_model"] = folder_digest(folder)
        return parts

    def sets(self, question: Question) -> list[ImageSet]:
        """Return the sets of a question: one, or one for each prompt; none if it is skipped.

        The anchor, which stands for the whole text, comes first: a single image is that one.
        Withheld images are left out; if all are, there are no sets.
        """
        sets = [tuple(r for r in one if r not in self.withheld) for one in self._all(question)]
        return sets if any(sets) else []

    def withheld_of(self, question: Question) -> int:
        """Return how many distinct images of a question are withheld."""
        return len({r for one in self._all(question) for r in one} & self.withheld)

    def _all(self, question: Question) -> list[ImageSet]:
        if question.index in self.skipped:
            return []
        config, sets = self.config, []
        for text in [question.image_text] if self._per == "question" else question.image_texts:
            *sentences, anchor = image_prompts(
                text,
                config.num_images,
                anchor_words=config.anchor_words,
                verbatim=config.prompt_rule == "verbatim",
            )
            sets.append(tuple(image_requests([anchor, *sentences], config.seed)))
        return sets

    def requests(self, dataset: BenchmarkDataset) -> Iterator[ImageRequest]:
        """Yield every image of the questions of a data set."""
        for index in range(len(dataset)):
            try:
                question = dataset.question(index)
            except RecordError:
                continue
            for requests in self.sets(question):
                yield from requests

    def prepare(self, model: LateFusionModel, dataset: BenchmarkDataset, world: World) -> None:
        """Make, encode and score what is missing, each process its share; all of them call this.

        Features are computed in the caller's autocast, as the model would compute them there; all
        else in full precision.
        """
        import torch

        device = model.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with torch.autocast(device, enabled=False):
            self.withheld = frozenset()
            requests = list(dict.fromkeys(self.requests(dataset)))
            share = requests[world.rank :: world.size]
            made = self._fill(share, world)
            logger.info("%d distinct images, %d of this process's are new", len(requests), made)
            self._find_withheld(share, len(requests), world)
            requests = [request for request in requests if request not in self.withheld]
            share = [request for request in share if request not in self.withheld]
            if self._keep and not self.store.makes_features:
                processing = dataset.vis_processor.describe()
                self._tower = [model.frozen_fingerprint(), device, str(dtype), processing]
                with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
                    self._encode(share, model, dataset, world)
            self._weigh(requests, share, world)
        self.store.generator.release()
        world.barrier("images ready")

    def _fill(self, share: Sequence[ImageRequest], world: World) -> int:
        return sum(
            self.store.fill(part, rank=0, world_size=1, progress=False).made
            for part in _chunks(share, "images", world)
        )

    def _find_withheld(self, share: Sequence[ImageRequest], count: int, world: World) -> None:
        mine = [request for request in share if self.store.is_withheld(request)]
        parts = world.gather(mine, "withheld images")
        self.withheld = frozenset(ImageRequest(*request) for part in parts for request in part)
        if self.withheld:
            logger.warning(
                "%d of %d images are withheld by the generator's safety checker; their questions "
                "are asked with fewer images",
                len(self.withheld),
                count,
            )

    def _encode(
        self,
        share: Sequence[ImageRequest],
        model: LateFusionModel,
        dataset: BenchmarkDataset,
        world: World,
    ) -> None:
        import torch

        store, tower = self.store, self._tower
        missing = [r for r in share if not store.has_features(store.key(*r), tower)]
        for part in _chunks(missing, "features of images", world):
            images = [dataset.process(image) for image in store.images(part)]
            with torch.no_grad():
                encoded = model.encode_frozen(torch.stack(images)).float().cpu().numpy()
            for request, features in zip(part, encoded, strict=True):
                store.put_features(store.key(*request), tower, features)

    def _weigh(
        self, requests: Sequence[ImageRequest], share: Sequence[ImageRequest], world: World
    ) -> None:
        scorer = build_scorer(self.config, self.store.generator)
        if scorer is None:
            return
        for start in range(0, len(share), _CHUNK):
            self.store.scores(share[start : start + _CHUNK], scorer)
            world.beat("scores of images")
        world.barrier("images scored")
        values = self.store.scores(requests, scorer).tolist()
        self._scores = dict(zip(requests, values, strict=True))

    def score(self, request: ImageRequest) -> float | None:
        """Return the similarity of an image and its prompt, or None without a scorer."""
        return self._scores.get(request)

    def shown(self, sets: Sequence[ImageSet]) -> bool | None:
        """Return whether an image shows something of its prompt, None if that is unknown."""
        generator = self.store.generator
        shown = [generator.shows(request.prompt) for one in sets for request in one]
        return None if None in shown else any(shown)

    def load(self, requests: Sequence[ImageRequest], dataset: BenchmarkDataset) -> dict[str, Any]:
        """Return `vision_features` `(N, P, D)`, or `image` `(N, 3, S, S)` without kept features.

        Raises:
            RecordError: an image or its features are gone from the cache.
        """
        import torch

        store = self.store
        try:
            if store.makes_features:
                return {"vision_features": torch.from_numpy(store.text_features(requests))}
            if not self._keep:
                images = [store.image(store.key(*request)) for request in requests]
                return {"image": torch.stack([dataset.process(image) for image in images])}
        except DataError as error:
            raise RecordError(str(error)) from None
        features = []
        for request in requests:
            key = store.key(*request)
            array = store.features(key, self._tower)
            if array is None:
                store.drop_features(key, self._tower)
                raise RecordError(
                    f"missing features of an image: {request.prompt[:60]}; start again to compute "
                    "them"
                )
            features.append(array)
        return {"vision_features": torch.from_numpy(np.stack(features))}


def _chunks(
    requests: Sequence[ImageRequest], title: str, world: World
) -> Iterator[Sequence[ImageRequest]]:
    """Yield requests a chunk at a time, with progress and heartbeats."""
    progress = Progress(len(requests), title, unit="images", shown=world.rank == 0)
    for start in range(0, len(requests), _CHUNK):
        part = requests[start : start + _CHUNK]
        yield part
        progress.add(len(part))
        world.beat(title)
    progress.close()


def control_question(
    dataset: BenchmarkDataset, index: int, skipped: frozenset[int] = frozenset()
) -> Question:
    """Return a question about something else, half a data set further, that is not `skipped`."""
    question = dataset.question(index)
    count = len(dataset)
    for step in range(count):
        try:
            other = dataset.question((index + count // 2 + step) % count)
        except RecordError:
            continue
        if other.image_text != question.image_text and other.index not in skipped:
            return other
    return question
