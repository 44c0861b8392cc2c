"""Section `datasets.benchmark`; imports no torch."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from lavis.common.config.fields import STRICT
from lavis.common.errors import ConfigError, nearest
from lavis.datasets.benchmarks.table import BENCHMARKS
from lavis.datasets.config import DatasetConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BenchmarkConfig(DatasetConfig):
    """A published benchmark, chosen by `type` (its default YAML) or by `benchmark`.

    `build_info.annotations.test.storage` may name the files; empty, they are searched for under
    `data_dir` by their published names.

    Attributes:
        benchmark: a name of `lavis.datasets.benchmarks.table`.
        data_dir: folder of the published files, or the one file; null fetches from the hub.
        subsets: groups to read (null: all).
        use_icl: ImageNetVC's demonstrations, from its folder `dev`, in front of each prompt.
        protocol: which questions reading comprehension asks, and what they show. `corrected`:
            unanswerable ones too (SQuAD v2), the passage in place of the article's introduction
            (QuAC), and examples of the same paragraph only. Other benchmarks ask the same
            questions under both protocols, which score them side by side.
        unify_grey: write "grey" as "gray".
        max_questions: at most so many of each group, the first ones.
    """

    UNREAD: ClassVar[frozenset[str]] = DatasetConfig.UNREAD | {"data_dir"}

    benchmark: str
    data_dir: str | None = None
    subsets: list[str] | None = None
    use_icl: bool = False
    protocol: Literal["released", "corrected"] = "released"
    unify_grey: bool = False
    max_questions: int | None = None

    def __post_init__(self) -> None:
        if self.benchmark not in BENCHMARKS:
            hint = nearest(self.benchmark, BENCHMARKS)
            raise ConfigError(f"benchmark: unknown benchmark '{self.benchmark}'{hint}")
        if self.subsets is not None:
            groups = [source.group for source in BENCHMARKS[self.benchmark].sources]
            for subset in self.subsets:
                if subset not in groups:
                    raise ConfigError(f"subsets: '{subset}'{nearest(subset, groups)}")
        if self.max_questions is not None and self.max_questions < 1:
            raise ConfigError(f"max_questions is {self.max_questions}; use 1 or more, or null")
        if self.data_dir is not None and not os.path.exists(os.path.expanduser(self.data_dir)):
            raise ConfigError(f"data_dir: no such file or folder: {self.data_dir}")
        if self.use_icl and self.benchmark != "imagenetvc":
            raise ConfigError("use_icl: only imagenetvc has demonstrations; set it to false")
        super().__post_init__()

    def check_source(self, name: str, split: str) -> None:
        """Raise `ConfigError` where there are neither files nor a way to fetch them."""
        benchmark = BENCHMARKS[self.benchmark]
        if self.data_dir is not None or self.files:
            return
        if any(source.hub is None for source in benchmark.sources):
            names = ", ".join(source.patterns[0] for source in benchmark.sources)
            raise ConfigError(
                f"datasets.benchmark.data_dir: missing; give the folder that holds {names} "
                f"(--options datasets.benchmark.data_dir=...)"
            )
        if find_spec("datasets") is None:
            raise ConfigError(
                f"datasets.benchmark.data_dir: missing; give the folder of {self.benchmark}'s "
                "published files (--options datasets.benchmark.data_dir=...), or pip install "
                "datasets to fetch it"
            )

    @property
    def files(self) -> list[str]:
        """Configured files, one for each group that is read; none where they are searched for."""
        for source in self.build_info.annotations.values():
            root = os.path.expanduser(self.data_dir or "")
            return [os.path.join(root, os.path.expanduser(path)) for path in source.paths if path]
        return []

    def record_paths(self, split: str) -> list[str]:
        """Return the configured files."""
        return self.files
