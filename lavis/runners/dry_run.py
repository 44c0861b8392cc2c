"""What an evaluation would read, counted on a part of its units; no weights, nothing written."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lavis.common.config.loading import Config
from lavis.common.errors import ConfigError, nearest
from lavis.common.storage.plan import UnitPlan
from lavis.datasets.base import RecordDataset
from lavis.runners.contracts import RunnerTask

logger = logging.getLogger(__name__)

SAMPLE = 400  # texts that are read, about


class DryRun:
    """Estimates the test splits of a run.

    Args:
        task: of the run; it asks the model what it would ask in the run.
        model: of `for_dry_run` of the model's class: counts what it is asked.
        datasets: data set name -> split -> data set.

    Example:
        >>> DryRun(config, task, model, datasets).estimate(tokens_per_second=5000)
        {"test": {"rows": 12000, "images": 3000, ..., "minutes": 41.2}}
    """

    def __init__(
        self,
        cfg: Config,
        task: RunnerTask,
        model: Any,
        datasets: Mapping[str, Mapping[str, RecordDataset]],
    ) -> None:
        self._run, self._task, self._model, self._datasets = cfg.run, task, model, datasets

    def estimate(self, tokens_per_second: float | None = None) -> dict[str, dict[str, Any]]:
        """Return the figures of each split, under the name of its result.

        Args:
            tokens_per_second: that the model reads, for `minutes`.

        Returns:
            `rows`; `rows_read`, of the sample that all other figures are scaled from; `images`,
            distinct ones; `views`, as they are shown; `texts`; `set_aside` by reason; what the
            model counts; `minutes`.
        """
        figures = {}
        for split in self._run.test_splits:
            named = {n: splits[split] for n, splits in self._datasets.items() if split in splits}
            if not named:
                known = {one for splits in self._datasets.values() for one in splits}
                hint = nearest(split, known)
                raise ConfigError(f"run.test_splits: no data set has split {split!r}{hint}")
            for name, dataset in named.items():
                key = split if len(named) == 1 else f"{name}_{split}"
                figures[key] = self._split(dataset, tokens_per_second)
        return figures

    def _split(self, dataset: RecordDataset, tokens_per_second: float | None) -> dict[str, Any]:
        plan = self._task.plan(dataset, self._run.batch_size_eval)
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        rows_read = 0
        for unit in _sample(plan):
            rows_read += len(plan.rows(unit))
            batch = self._task.load_unit(dataset, plan, unit)
            for _, payload in getattr(batch, "rejects", ()):
                reasons[payload["reject"].split(":")[0]] += 1
            if not batch.rows:
                continue
            views = batch.samples.get("views", ())
            counts["images"] += len(views)
            counts["views"] += sum(map(len, views))
            counts["texts"] += len(batch.samples.get("parts", ()))
            with torch.no_grad():
                self._task.predict(self._model, batch)
        counts.update(self._model.take_counts())
        scale = len(plan.order) / max(1, rows_read)
        scaled = {name: round(count * scale) for name, count in counts.items()}
        figures = {
            "rows": len(plan.order),
            "rows_read": rows_read,
            **scaled,
            "set_aside": {reason: round(count * scale) for reason, count in reasons.items()},
            **self._model.costs(scaled),
        }
        if tokens_per_second is not None:
            figures["minutes"] = round(scaled.get("tokens", 0) / tokens_per_second / 60, 2)
        return figures


def _sample(plan: UnitPlan) -> Iterator[int]:
    """Yield numbers of units of about `SAMPLE` rows, evenly spaced: long texts come first."""
    count = len(plan)
    if not count:
        return
    wanted = min(count, max(1, round(SAMPLE * count / max(1, len(plan.order)))))
    spaced = np.linspace(0, count, wanted, endpoint=False) + count / wanted / 2
    yield from map(int, spaced)
