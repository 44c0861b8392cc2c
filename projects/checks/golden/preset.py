"""Benchmark questions through the evaluation task, with images and scores that are preset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lavis.common.dist import World
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.benchmarks.question import Question
from lavis.datasets.config import BuildInfo, ProcessorPair, SplitSource
from lavis.generators.base import ImageRequest
from lavis.generators.config import ImagesConfig
from lavis.tasks.questions import task as visual_questions
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.task import VisualQuestionsTask

Chosen = tuple[Sequence[int], Sequence[float]]  # places in a pool of images, and their scores
PROCESSOR = {"name": "base"}  # no image is processed


class PresetImages:
    """Stands in for `QuestionImages`.

    Args:
        pool: `(N, 3, S, S)`.
        sets: of a question: what is chosen for it, or for each of its prompts.
    """

    weighed = True
    skipped: frozenset[int] = frozenset()

    def __init__(self, pool: Tensor, sets: Callable[[Question], Iterable[Chosen]]) -> None:
        self._pool, self._sets = pool, sets

    def prepare(self, model: Any, dataset: Any, world: Any) -> None:
        """Do nothing: images are there."""

    def fingerprint(self) -> dict[str, Any]:
        """Return nothing: results are not kept."""
        return {}

    def sets(self, question: Question) -> list[tuple[ImageRequest, ...]]:
        """Return requests that carry place and score."""
        return [
            tuple(ImageRequest(repr(score), place) for place, score in zip(*one, strict=True))
            for one in self._sets(question)
        ]

    def withheld_of(self, question: Question) -> int:
        """Return 0: all images are there."""
        return 0

    def shown(self, sets: Any) -> None:
        """Return nothing: tensors have no file names to show."""

    def score(self, request: ImageRequest) -> float:
        """Return the score of a request."""
        return float(request.prompt)

    def load(self, requests: list[ImageRequest], dataset: Any) -> dict[str, Tensor]:
        """Return the chosen images."""
        return {"image": self._pool[[request.index for request in requests]]}


def make_dataset(
    benchmark: str, data_dir: Path, *, processor: dict[str, Any] | None = None, **options: Any
) -> BenchmarkDataset:
    """Return a benchmark of files in a folder."""
    config = BenchmarkConfig(
        benchmark=benchmark,
        data_dir=str(data_dir),
        build_info=BuildInfo(annotations={"test": SplitSource(storage=[])}),
        vis_processor=ProcessorPair(eval=processor or PROCESSOR),
        **options,
    )
    return BenchmarkDataset(config, "test")


def make_task(config: VisualQuestionsConfig, images: Any = None) -> VisualQuestionsTask:
    """Return a task that takes these images in place of generated ones."""
    with mock.patch.object(visual_questions, "QuestionImages", lambda *a, **k: images):
        return VisualQuestionsTask(config)


@dataclass
class Answers:
    """What a task says.

    Attributes:
        rows: each question's result row, in the order of the data set.
        chances: column -> (question, prompt) -> token -> probability right behind the prompt.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    chances: dict[str, dict[tuple[int, int], dict[int, float]]] = field(default_factory=dict)


def answer(task: VisualQuestionsTask, model: Any, dataset: Any, batch_size: int = 8) -> Answers:
    """Ask every question, unit by unit, as a runner does."""
    task.prepare(model, dataset, World(0, 1, torch.device("cpu")))
    plan = task.plan(dataset, batch_size)
    found = Answers()
    rows: dict[int, Any] = {}
    for unit in range(len(plan)):
        batch = task.load_unit(dataset, plan, unit)
        with torch.no_grad():
            outputs = task.predict(model, batch) if batch.rows else {}
        rows.update(task.rows(batch, outputs))
        for name, values in outputs.items():
            if name.startswith("log_probs."):
                known = found.chances.setdefault(name.removeprefix("log_probs."), {})
                _note(known, batch, values.exp())
    assert sorted(rows) == list(range(len(dataset)))
    found.rows = [rows[index] for index in range(len(dataset))]
    return found


def _note(known: dict[tuple[int, int], dict[int, float]], batch: Any, values: Tensor) -> None:
    for row, request in enumerate(batch.requests):
        index = batch.questions[request.question].index
        for at, prefix in enumerate(request.prefixes):
            if prefix == ():
                wanted = request.targets[at][1]
                numbers = values[row, at, : len(wanted)].tolist()
                known.setdefault((index, request.prompt), {}).update(
                    zip(wanted, numbers, strict=True)
                )


def make_config(
    tokenizer: Path, root: Path, *, num_images: int, **options: Any
) -> VisualQuestionsConfig:
    """Return a task's settings: the text alone, and all images.

    Args:
        tokenizer: folder of a set's tokenizer.
        root: any folder; no image is read from it.
        num_images: K.
    """
    images = ImagesConfig(num_images=num_images, generator="folder", options={"root": str(root)})
    given = {"columns": ["text", "images"], **options}
    return VisualQuestionsConfig(tokenizer=str(tokenizer), images=images, **given)


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
