"""Runs the answering task without a runner, and pictures that tests hand in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.config import BuildInfo, ProcessorPair, SplitSource
from lavis.generators.base import PictureRequest
from lavis.generators.config import PicturesConfig
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from lavis.tasks import visual_questions
from lavis.tasks.question_config import VisualQuestionsConfig
from lavis.tasks.visual_questions import VisualQuestionsTask

SET = Path(__file__).parents[1] / "fixtures" / "vlmig" / "eval"


class World:
    """One process."""

    rank, size = 0, 1

    def beat(self, where: str) -> None: ...

    def barrier(self, what: str) -> None: ...


def make_dataset(benchmark: str, data_dir: Path, **options: Any) -> BenchmarkDataset:
    build_info = BuildInfo(annotations={"test": SplitSource(storage=[])})
    processor = ProcessorPair(eval={"name": "blip_image_eval", "image_size": 32})
    config = BenchmarkConfig(
        benchmark=benchmark,
        data_dir=str(data_dir),
        build_info=build_info,
        vis_processor=processor,
        **options,
    )
    return BenchmarkDataset(config, "test")


def make_config(num_images: int = 0, pictures: dict | None = None, **options: Any) -> Any:
    node = {"num_images": num_images, "generator": "folder", "options": {"root": "."}}
    return VisualQuestionsConfig(
        tokenizer=str(SET), pictures=PicturesConfig(**{**node, **(pictures or {})}), **options
    )


def make_model(folder: Path, **options: Any) -> LateFusion:
    """The set's tiny GPT-2 with its tower, projector and block."""
    (folder / "config.json").write_text((SET / "vision_config.json").read_text())
    given = {"mix": "logits", "clamp_weights": False, **options}
    config = LateFusionConfig(
        llm=str(SET),
        llm_weights="config",
        vision=VisionConfig(name=str(folder), weights="config"),
        pretrained=str(SET / "model.safetensors"),
        **given,
    )
    return LateFusion.from_config(config).eval()


class GivenPictures:
    """Stands in for made pictures: tensors of a pool, chosen and scored by the test.

    Args:
        pool: `(N, 3, S, S)`.
        chosen: picture text -> (places in the pool, scores), where pictures are the question's; or
            prompt -> the same, where they are each prompt's own.
    """

    weighed = True

    def __init__(self, pool: torch.Tensor, chosen: dict[str, Any], per: str) -> None:
        self.pool, self.chosen, self.per = pool, chosen, per

    def prepare(self, model: Any, dataset: Any, world: Any) -> None: ...

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def sets(self, question: Any) -> list[Any]:
        texts = [question.picture_text] if self.per == "question" else question.picture_texts
        found = []
        for text in texts:
            places, scores = self.chosen[text]
            names = [repr(score) for score in scores]
            requests = zip(names, places, strict=True)
            found.append(tuple(PictureRequest(name, place) for name, place in requests))
        return found

    def score(self, request: PictureRequest) -> float:
        return float(request.prompt)

    def load(self, requests: list[PictureRequest], dataset: Any) -> dict[str, torch.Tensor]:
        return {"image": self.pool[[request.index for request in requests]]}


def make_task(config: Any, monkeypatch: Any, pictures: Any = None) -> VisualQuestionsTask:
    monkeypatch.setattr(visual_questions, "QuestionPictures", lambda *a, **k: pictures)
    return VisualQuestionsTask(config)


def answer(task: Any, model: Any, dataset: Any, batch_size: int = 8) -> list[dict[str, Any]]:
    """Return the row of every question, in the order of the data set."""
    task.prepare(model, dataset, World())
    plan = task.plan(dataset, batch_size)
    rows: dict[int, dict[str, Any]] = {}
    for unit in range(len(plan)):
        batch = task.load_unit(dataset, plan, unit)
        with torch.no_grad():
            outputs = task.predict(model, batch)
        rows.update(task.rows(batch, outputs))
    assert sorted(rows) == list(range(len(dataset)))
    return [rows[index] for index in range(len(dataset))]
