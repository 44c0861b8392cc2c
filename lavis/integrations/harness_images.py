"""Images of any text, as the evaluation task makes them for benchmarks.

Shapes: B texts, N distinct images of them, K images of a text, P patches of width D.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lavis.common.dist import World
from lavis.common.pixels import to_rgb
from lavis.datasets.benchmarks.question import Question
from lavis.generators.config import ImagesConfig
from lavis.tasks.questions.images import QuestionImages


class _Texts:
    """Stands in for a benchmark whose questions are these texts."""

    def __init__(self, texts: Sequence[str], processor: Any) -> None:
        self._texts, self.vis_processor = texts, processor

    def __len__(self) -> int:
        return len(self._texts)

    def question(self, index: int) -> Question:
        return as_question(self._texts[index])

    def process(self, image: Any) -> Tensor:
        return self.vis_processor(to_rgb(image), rng=None, boxes=[])


def as_question(text: str) -> Question:
    """Return a question of nothing but the text that images are drawn from."""
    return Question("", "generate", (text,), (), text, image_text=text, image_texts=(text,))


class TextImages:
    """Makes, weighs and encodes images of texts, and keeps them in the image store.

    Args:
        config: where images come from; K is 1 or more.
        processor: turns an image into the tower's input.
    """

    def __init__(self, config: ImagesConfig, processor: Any) -> None:
        self._images = QuestionImages(config, "question", keep_features=True)
        self._processor = processor
        self._count = config.num_images
        self._benchmark: Any = None

    def prepare(self, model: Any, texts: Iterable[str]) -> None:
        """Make missing images; each process does so for its own texts."""
        distinct = [text for text in dict.fromkeys(texts) if text.strip()]
        self._benchmark = _Texts(distinct, self._processor)
        if distinct:
            self._images.prepare(model, self._benchmark, World(0, 1, model.device))

    def samples(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `vision_features` `(N, P, D)`, `image_index` and `scores` `(B, K)`.

        A text without words has no images, nor has one whose images are all withheld: its row
        of `image_index` is -1. Nothing is returned where no text has any.

        Raises:
            RecordError: an image is gone from the store.
        """
        sets: list[Any] = [
            next(iter(self._images.sets(as_question(text))), ()) if text.strip() else ()
            for text in texts
        ]
        places = {
            request: n for n, request in enumerate(dict.fromkeys(r for one in sets for r in one))
        }
        if not places:
            return {}
        samples = self._images.load(list(places), self._benchmark)
        index = torch.full((len(texts), self._count), -1, dtype=torch.long)
        scores = torch.zeros(len(texts), self._count)
        for row, one in enumerate(sets):
            for column, request in enumerate(one):
                index[row, column] = places[request]
                scores[row, column] = self._images.score(request) or 0.0
        samples["image_index"] = index
        if self._images.weighed:
            samples["scores"] = scores
        return samples
