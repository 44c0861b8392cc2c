"""Pictures of benchmark questions: made, scored and encoded ahead, read back unit by unit.

Shapes: N distinct pictures of a unit, B rows, K pictures of a row, P tokens of width D, S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lavis.common.content import folder_digest
from lavis.common.errors import DataError, RecordError
from lavis.common.logger import Progress
from lavis.generators.base import PictureRequest, picture_requests
from lavis.generators.build import build_scorer, build_store, placed
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
        withheld: pictures that the generator drew and does not hand out; questions have fewer then.
    """

    def __init__(
        self, config: PicturesConfig, per: Literal["question", "prompt"], *, keep_features: bool
    ) -> None:
        self.config = config = placed(config)
        self._per, self._keep = per, keep_features
        self.store = build_store(config)
        self._scores: dict[PictureRequest, float] = {}
        self._tower: Any = None
        self.weighed = config.scorer is not None
        self.skipped: frozenset[int] = frozenset()
        self.withheld: frozenset[PictureRequest] = frozenset()

    def fingerprint(self) -> dict[str, Any]:
        """Return what pictures depend on besides questions."""
        found: dict[str, Any] = {"generator": self.store.fingerprint(), "per": self._per}
        folder = Path(self.config.clip_model).expanduser()
        if self.config.scorer == "clip" and folder.is_dir():
            found["clip_model"] = folder_digest(folder)
        return found

    def sets(self, question: Question) -> list[PictureSet]:
        """Return the sets of a question: one, or one for each prompt; none where it is skipped.

        The anchor, which stands for the whole text, comes first: a single picture is that one.
        Withheld pictures are left out; where all are, there are no sets.
        """
        found = [tuple(r for r in one if r not in self.withheld) for one in self._all(question)]
        return found if any(found) else []

    def withheld_of(self, question: Question) -> int:
        """Return how many distinct pictures of a question are withheld."""
        return len({r for one in self._all(question) for r in one} & self.withheld)

    def _all(self, question: Question) -> list[PictureSet]:
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

        Features are computed in the autocast that this is called in, so that they are those which
        the model would compute there itself; all else in full precision.

        Args:
            model: gives `encode_frozen`, `frozen_fingerprint` and `device`.
            world: gives `rank`, `size`, `beat`, `gather` and `barrier`.
        """
        import torch

        device = model.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with torch.autocast(device, enabled=False):
            self.withheld = frozenset()
            wanted = list(dict.fromkeys(self.requests(dataset)))
            share = wanted[world.rank :: world.size]
            made = self._fill(share, world)
            logger.info("%d distinct pictures, %d of this process's are new", len(wanted), made)
            self._note_withheld(share, len(wanted), world)
            wanted, share = (
                [request for request in some if request not in self.withheld]
                for some in (wanted, share)
            )
            if self._keep and not self.store.makes_features:
                processing = dataset.vis_processor.describe()
                self._tower = [model.frozen_fingerprint(), device, str(dtype), processing]
                with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
                    self._encode(share, model, dataset, world)
            self._weigh(wanted, share, world)
        self.store.generator.release()
        world.barrier("pictures ready")

    def _note_withheld(self, share: Sequence[PictureRequest], count: int, world: Any) -> None:
        mine = [request for request in share if self.store.is_withheld(request)]
        parts = world.gather(mine, "withheld pictures")
        self.withheld = frozenset(PictureRequest(*request) for part in parts for request in part)
        if self.withheld:
            logger.warning(
                "%d of %d pictures are withheld by the generator's safety checker; their questions "
                "are asked with fewer pictures",
                len(self.withheld),
                count,
            )

    def _weigh(
        self, wanted: Sequence[PictureRequest], share: Sequence[PictureRequest], world: Any
    ) -> None:
        scorer = build_scorer(self.config, self.store.generator)
        if scorer is None:
            return
        for start in range(0, len(share), _CHUNK):
            self.store.scores(share[start : start + _CHUNK], scorer)
            world.beat("scores of pictures")
        world.barrier("pictures scored")
        values = self.store.scores(wanted, scorer).tolist()
        self._scores = dict(zip(wanted, values, strict=True))

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
        store = self.store
        missing = [r for r in share if not store.has_features(store.key(*r), self._tower)]
        import torch

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
                store.drop_features(store.key(*request), self._tower)
                raise RecordError(
                    f"missing features of a picture: {request.prompt[:60]}; start again to compute "
                    "them"
                )
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
