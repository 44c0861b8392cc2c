"""Questions of one benchmark as a data set that a task can plan, load and journal."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lavis.common.errors import ConfigError, DataError, RecordError
from lavis.common.registry import datasets
from lavis.common.storage.content import content_digest
from lavis.common.storage.inputs import Input
from lavis.datasets.base import RecordDataset
from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.files import Record, find_file, read_file, read_hub
from lavis.datasets.benchmarks.question import Question
from lavis.datasets.benchmarks.table import BENCHMARKS
from lavis.datasets.rows import Row
from lavis.processors import load_processor

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

# Names of `Question`'s fields in the digests of journals, which outlive a name in the code.
_JOURNAL_NAMES = {"image_text": "picture_text", "image_texts": "picture_texts"}


@datasets.register("benchmark")
class BenchmarkDataset(RecordDataset):
    """A published benchmark; rows are its questions, group after group.

    Rows whose questions share `image_text` share an image key, so that one unit of work holds
    them. The task makes the images.
    """

    config_class: ClassVar[type[BenchmarkConfig]] = BenchmarkConfig
    config: BenchmarkConfig

    def __init__(self, config: BenchmarkConfig, split: str, *, name: str = "benchmark") -> None:
        self.config, self.name, self.split, self.is_train = config, name, split, False
        config.check_source(name, split)
        self.kind = BENCHMARKS[config.benchmark].kind
        node = config.processor("vis", split)
        self.vis_processor = load_processor(node["name"], node)
        self.items: list[Question | Record] = []
        self._files: list[dict[str, Any]] = []
        for source, records in self._records():
            made = BENCHMARKS[config.benchmark].read(records, source, config)
            for item in _first_of_each_group(made, source.group, config.max_questions):
                at = len(self.items)
                self.items.append(replace(item, index=at) if isinstance(item, Question) else item)
        if not any(isinstance(item, Question) for item in self.items):
            raise DataError(
                f"datasets.{name}: {config.benchmark} holds no question that can be asked"
            )

    def _records(self) -> list[tuple[Any, list[Record]]]:
        config = self.config
        sources = [
            source
            for source in BENCHMARKS[config.benchmark].sources
            if config.subsets is None or source.group in config.subsets
        ]
        named = config.files
        if named and len(named) != len(sources):
            groups = ", ".join(source.group for source in sources)
            raise ConfigError(
                f"datasets.{self.name}.build_info.annotations.{self.split}.storage: {len(named)} "
                f"files for {len(sources)} groups; name one for each of {groups}"
            )
        pairs = []
        for place, source in enumerate(sources):
            if config.data_dir is None and not named:
                records = read_hub(source)
                self._files.append({"hub": source.hub, "records": len(records)})
            else:
                path = named[place] if named else find_file(config.data_dir or ".", source)
                records = read_file(path)
                name = os.path.basename(path)
                self._files.append({"name": name, "content": content_digest(path)})
            pairs.append((source, records))
        return pairs

    def __len__(self) -> int:
        return len(self.items)

    def question(self, index: int) -> Question:
        """Return one question; raises `RecordError`, with a `reason`, for an unusable record."""
        item = self.items[index]
        if isinstance(item, Record):
            raise RecordError(item.reason)
        return item

    def _read_row(self, index: int, rng: random.Random | None) -> Row:
        """Return what a plan needs: the texts, and the key of the shared images."""
        question = self.question(index)
        text = question.image_text.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(text, digest_size=16).hexdigest()
        fields = {"question_id": question.question_id}
        return Row(index, key, question.prompts[0], fields, texts=question.prompts)

    def image(self, row: Row, rng: random.Random | None = None) -> Tensor:
        """Raise: a question has many images, and the task makes them."""
        raise ConfigError(
            "run.cache_features: images of a benchmark's questions are kept by the task; use "
            "run.keep_features=true and run.cache_features=false"
        )

    def process(self, image: Image.Image) -> Tensor:
        """Return (3, S, S) float32; raises `ConfigError` where no image processor is configured."""
        self.check_processor("{name: blip_image_eval, image_size: 224}")
        return self.vis_processor(image.convert("RGB"), rng=None, boxes=[])

    def record(self, index: int) -> dict[str, Any]:
        """Return the question as plain values."""
        return asdict(self.question(index))

    def source(self, index: int) -> dict[str, Any]:
        """Return file and line of a rejected record."""
        item = self.items[index]
        return {"file": item.file, "line": item.line} if isinstance(item, Record) else {}

    def places(self) -> list[str]:
        """Return nothing: no row has a file of its own."""
        return []

    def inputs(self, index: int) -> list[Input]:
        """Return nothing: no row has a file of its own."""
        return []

    def fingerprint(self) -> dict[str, Any]:
        """Return what questions and images depend on: files and options."""
        content = hashlib.blake2b(digest_size=16)
        for item in self.items:
            value = item.reason if isinstance(item, Record) else _in_journals(item)
            content.update(json.dumps(value, sort_keys=True, default=str).encode())
        return {
            "name": self.name,
            "split": self.split,
            "files": self._files,
            "content": content.hexdigest(),
            "vis_processor": self.vis_processor.describe(),
            "options": self.config.options(self.split),
        }


def _in_journals(question: Question) -> dict[str, Any]:
    """Return a question under the field names that digests in journals use."""
    return {_JOURNAL_NAMES.get(key, key): value for key, value in asdict(question).items()}


def _first_of_each_group(
    items: Iterable[Question | Record], source: str, most: int | None
) -> Iterator[Question | Record]:
    """Yield at most so many of each group, in order; bad records count to their source's."""
    counts: Counter[str] = Counter()
    for item in items:
        group = item.group if isinstance(item, Question) else source
        counts[group] += 1
        if most is None or counts[group] <= most:
            yield item
