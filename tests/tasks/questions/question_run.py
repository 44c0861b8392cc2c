"""Tasks, models and images for tests of answering questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lavis.common.dist import World as OneOfMany
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.generators.config import ImagesConfig
from lavis.models.late_fusion.config import LateFusionConfig, VisionConfig
from lavis.models.late_fusion.model import LateFusion
from lavis.tasks.questions.config import VisualQuestionsConfig
from lavis.tasks.questions.task import VisualQuestionsTask
from projects.checks.golden import preset

SET = Path(__file__).parents[2] / "fixtures" / "vlmig" / "eval"
PROCESSOR = {"name": "blip_image_eval", "image_size": 32}


def World() -> OneOfMany:
    """One process."""
    return OneOfMany(0, 1, torch.device("cpu"))


def make_dataset(benchmark: str, data_dir: Path, **options: Any) -> BenchmarkDataset:
    return preset.make_dataset(benchmark, data_dir, processor=PROCESSOR, **options)


def make_config(num_images: int = 0, images: dict | None = None, **options: Any) -> Any:
    node = {"num_images": num_images, "generator": "folder", "options": {"root": "."}}
    return VisualQuestionsConfig(
        tokenizer=str(SET), images=ImagesConfig(**{**node, **(images or {})}), **options
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


class PresetImages(preset.PresetImages):
    """Images of a pool, chosen and scored by the test.

    Args:
        pool: `(N, 3, S, S)`.
        chosen: image text -> (places in the pool, scores), where images are the question's; or
            prompt -> the same, where they are each prompt's own.
    """

    def __init__(self, pool: torch.Tensor, chosen: dict[str, Any], per: str) -> None:
        self.chosen = chosen

        def sets(question: Any) -> list[Any]:
            texts = [question.image_text] if per == "question" else question.image_texts
            return [self.chosen[text] for text in texts]

        super().__init__(pool, sets)


def make_task(config: Any, monkeypatch: Any, images: Any = None) -> VisualQuestionsTask:
    return preset.make_task(config, images)


def answer(task: Any, model: Any, dataset: Any, batch_size: int = 8) -> list[dict[str, Any]]:
    """Return the row of every question, in the order of the data set."""
    return preset.answer(task, model, dataset, batch_size).rows
