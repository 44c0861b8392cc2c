"""A data set of plain lists and a model that scores by rule, for tests of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from plain_data import PlainData

from lavis.common.errors import RecordError
from lavis.common.storage.journal import Journal, JournalReader
from lavis.datasets.rows import Row


@dataclass
class ListDataset(PlainData):
    """Rows from (image, text) pairs; `None` for a malformed row, image `broken` cannot be read.

    `records` holds what `record` returns, `labels` the label of each row.
    """

    pairs: list[tuple[str, str] | None]
    records: list[dict[str, Any]] | None = None
    labels: list[int] | None = None
    split: str = "test"
    name: str = "list"
    decoded: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pairs)

    def row(self, index: int, rng: Any = None) -> Row:
        pair = self.pairs[index]
        if pair is None:
            raise RecordError("malformed line: no pair")
        fields: dict[str, Any] = {"instance": f"id-{index}", "index": index}
        if self.labels is not None:
            fields["label"] = self.labels[index]
        return Row(index, pair[0], pair[1], fields)

    def image(self, row: Row, rng: Any = None) -> torch.Tensor:
        self.decoded.append(row.image_key)
        if row.image_key == "broken":
            raise RecordError("broken image: broken.png")
        return torch.full((3, 2, 2), float(len(row.image_key)))

    def drawn_image(self, row: Row) -> Image.Image:
        if row.image_key == "broken":
            raise RecordError("broken image: broken.png")
        return Image.new("RGB", (40, 20), (200, 30, 30))

    def record(self, index: int) -> dict[str, Any]:
        return self.records[index] if self.records else {"row": index, "prediction": None}

    def source(self, index: int) -> dict[str, Any]:
        return {"file": "list.jsonl", "line": index + 1}

    def collate(self, rows: list[Row], images: Any, image_index: list[int]) -> dict[str, Any]:
        texts = [row.text for row in rows]
        return {"image": images, "text_input": texts, "image_index": torch.tensor(image_index)}

    def fingerprint(self) -> dict[str, Any]:
        return {"pairs": self.pairs}


class RuleModel:
    """P(accept) is what the text says, such as `0.25 some words`."""

    def predict(self, samples: dict[str, Any]) -> dict[str, torch.Tensor]:
        scores = torch.tensor([float(text.split()[0]) for text in samples["text_input"]])
        prediction = torch.stack([1 - scores, scores], dim=1)
        return {"prediction": prediction, "logits": prediction.log()}


def run_task(task: Any, dataset: Any, model: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """Score every unit through the journal and finish, as a runner on one process does."""
    plan = task.plan(dataset, options.pop("batch_size", 4))
    name = f"{dataset.split}_epochbest"
    journal_folder = folder / "journal" / name
    with Journal(journal_folder, {}) as journal:
        for unit in range(len(plan)):
            batch = task.load_unit(dataset, plan, unit)
            outputs = task.predict(model, batch) if batch.rows else {}
            journal.append(unit, task.rows(batch, outputs))
    with JournalReader(journal_folder, {}) as reader:
        return task.finish(reader, dataset, folder, name, model=model, **options)


@pytest.fixture(scope="session")
def list_dataset() -> type[ListDataset]:
    return ListDataset


@pytest.fixture(scope="session")
def rule_model() -> RuleModel:
    return RuleModel()


@pytest.fixture(scope="session")
def run():
    return run_task
