"""Ask a trained model about an image and boxes: regions drawn and numbered as in training.

    reader = RegionModel.from_run("output/student")
    reader.answer(image, [(10, 20, 80, 120), (90, 5, 140, 60)], "What is [0] doing to [1]?")

Box k of the list is `[k]` in texts and has colour k.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from lavis.common.errors import ConfigError, DataError
from lavis.common.pixels import to_rgb
from lavis.common.registry import datasets
from lavis.datasets.lck.record import check_inside, make_region
from lavis.models.zoo import load_run
from lavis.processors import load_processor
from lavis.processors.region import DrawnRegion, Palette, draw_regions, outline_width

Box = Sequence[float]  # x1, y1, x2, y2 in pixels of the full image
_NUMBER = re.compile(r"\[(\d+)\]")
_ANSWER = "Answer:"


class RegionModel:
    """A model with the processors and the drawing of its training.

    Args:
        model: in evaluation mode: generative students and `vlm_student` answer; stage 1, critics
            and `vlm_student` rank.
        vis_processor, text_processor: those of evaluation.
        palette, line_width, max_regions: the data set's options.
    """

    def __init__(
        self,
        model: Any,
        vis_processor: Any,
        text_processor: Any,
        *,
        palette: Palette = "released",
        line_width: int | Literal["auto"] = 2,
        max_regions: int | None = None,
    ) -> None:
        self.model = model
        self._vis_processor, self._text_processor = vis_processor, text_processor
        self._palette: Palette = palette
        self._line_width, self._max_regions = line_width, max_regions

    @classmethod
    def from_run(
        cls, folder: str | Path, checkpoint: str = "checkpoint_best", device: str = "cpu"
    ) -> RegionModel:
        """Load a training run: its model section, a checkpoint, and its first data set's options.

        Raises:
            ConfigError: the folder is no training run's.
        """
        model, tree = load_run(folder, checkpoint)
        name, node = next(iter(tree["datasets"].items()))
        return cls(model.to(device), **dataset_options(name, node))

    def draw(self, image: Image.Image, boxes: Sequence[Box]) -> Image.Image:
        """Return the full-size image, regions drawn as in training.

        Raises:
            RecordError: a box that is inverted, not finite or outside the image.
        """
        image, drawn, width = self._regions(image, boxes)
        return draw_regions(image, drawn, palette=self._palette, width=width)

    def _regions(
        self, image: Image.Image, boxes: Sequence[Box]
    ) -> tuple[Image.Image, list[DrawnRegion], int]:
        """Return the image in RGB, what is drawn on it, and how wide."""
        image = to_rgb(image)
        regions = [make_region(k, {"boxes": [list(box)]}) for k, box in enumerate(boxes)]
        check_inside(regions, image.size)
        drawn = [DrawnRegion(r.region_id, r.box) for r in regions[: self._max_regions]]
        edge = int(getattr(self._vis_processor, "image_size", 384))
        return image, drawn, outline_width(image.size, self._line_width, edge)

    def answer(
        self, image: Image.Image, boxes: Sequence[Box], question: str, **options: Any
    ) -> str:
        """Return what a generative student answers.

        Args:
            image: of any size.
            boxes: regions in pixels of `image`; box k is `[k]` in the question.
            question: `What is [0] doing?`.
            options: of the model's `generate`: `num_beams`, `max_length` ...

        Raises:
            ConfigError: the model writes nothing.
            DataError: the question names a region without a box, or holds a mark of the model.
        """
        if not hasattr(self.model, "generate"):
            raise ConfigError(f"{type(self.model).__name__} writes no text; use rank")
        asked = question.rstrip().removesuffix(_ANSWER).rstrip()
        samples = self._samples(image, boxes, [f"{asked} {_ANSWER}"], [{"question": asked}])
        if "parts" in samples:
            self.model.encoder.check_text(asked)
        return self.model.generate(samples, **options)[0]

    def rank(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        texts: Sequence[str],
        *,
        question: str | None = None,
        by: Literal["itm", "itc"] = "itm",
    ) -> list[tuple[str, float]]:
        """Return texts with their scores, the best first; the image is encoded once.

        Args:
            texts: whole texts, or answers where `question` is given.
            by: `itm` is P(match), from 0 to 1; `itc` the cosine of stage 1, from -1 to 1.

        Raises:
            ConfigError: the model has no such score.
            DataError: a text names a region without a box.
        """
        if not hasattr(self.model, "score" if by == "itc" else "predict"):
            raise ConfigError(f"{type(self.model).__name__} has no score by {by}")
        full = [t if question is None else f"{question} {_ANSWER} {t}" for t in texts]
        own: dict[str, str] = {} if question is None else {"question": question}
        parts = [{**own, "answer": text} if own else own for text in texts]
        samples = self._samples(image, boxes, full, parts)
        if by == "itc":
            values = self.model.score(samples)["itc"]
        else:
            output = self.model.predict(samples)
            _refuse_rejects(output.get("notes") or ())
            values = output["prediction"][:, 1]
        pairs = zip(texts, values.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])

    def _samples(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        texts: Sequence[str],
        parts: Sequence[Mapping[str, str]],
    ) -> dict[str, Any]:
        """Return what a data set would collate.

        Args:
            parts: `question` and `answer` of each text, which a vision-language model reads.
        """
        for text in texts:
            missing = [n for n in map(int, _NUMBER.findall(text)) if n >= len(boxes)]
            if missing:
                raise DataError(
                    f"{text!r} names [{missing[0]}], and there are {len(boxes)} boxes, from [0]"
                )
        words = [self._text_processor(text) for text in texts]
        samples: dict[str, Any] = {"text_input": words, "image_index": [0] * len(texts)}
        if self._vis_processor.keeps_image:
            whole, regions, width = self._regions(image, boxes)
            shown = self._vis_processor(whole, regions=regions, palette=self._palette, width=width)
            named = [{**part, "text": text} for part, text in zip(parts, words, strict=True)]
            return {
                **samples, "views": [shown.views], "region_words": [shown.regions], "parts": named
            }  # fmt: skip
        drawn = self.draw(image, boxes)
        places = [tuple(float(v) for v in box[:4]) for box in boxes[: self._max_regions]]
        pixels = self._vis_processor(drawn, boxes=places)
        return {**samples, "image": torch.as_tensor(pixels)[None].to(self.model.device)}


def _refuse_rejects(notes: Sequence[Mapping[str, Any]]) -> None:
    """Raise `DataError` where a model says that it cannot score a text."""
    for note in notes:
        if "reject" in note:
            raise DataError(note["reject"])


def dataset_options(name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `RegionModel` that a data set's section gives."""
    defaults = datasets.config_class(name).__dataclass_fields__
    options: dict[str, Any] = {}
    for key in ("palette", "line_width", "max_regions"):
        if key in defaults:
            options[key] = node.get(key, defaults[key].default)
    for kind in ("vis", "text"):
        processor = (node.get(f"{kind}_processor") or {}).get("eval") or {"name": "base"}
        options[f"{kind}_processor"] = load_processor(processor["name"], processor)
    return options
