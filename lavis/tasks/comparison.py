"""Ranks the candidate texts of each picture by how well a matching model thinks they fit.

A row is one picture with C candidates; a unit has N candidates in all.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lavis.common.errors import ConfigError
from lavis.common.files import AtomicFile, write_atomically
from lavis.common.registry import tasks
from lavis.tasks.base import BaseTask, RowReader, UnitBatch
from lavis.tasks.config import ComparisonConfig
from lavis.tasks.filtering import check_complete, reject_line, split_prefix
from lavis.tasks.sinks import JsonArray

if TYPE_CHECKING:
    from torch import Tensor

    from lavis.datasets.base import RecordDataset


@tasks.register("comparison")
class ComparisonTask(BaseTask):
    """Multiple choice (`label` is the right candidate) and rank agreement (`scores` by people).

    The released scripts name this task and lack it; see `ComparisonConfig.match_head` for what
    ranks.
    """

    config_class: ClassVar[type] = ComparisonConfig

    def __init__(self, config: ComparisonConfig) -> None:
        super().__init__(config)
        self.config: ComparisonConfig = config

    def identity(self) -> dict[str, Any]:
        """Return what ranks."""
        return {"match_head": self.config.match_head}

    def predict(self, model: Any, batch: UnitBatch) -> dict[str, Tensor]:
        """Return `match` `(N,)`, one number per candidate, rows after each other.

        Raises:
            ConfigError: `run.match_head` asks for contrastive heads that the model lacks.
        """
        if not batch.rows:
            return {}
        if self.config.match_head == "itm":
            return {"match": model.predict(batch.samples)["logits"][:, 1]}
        if not hasattr(model, "score"):
            raise ConfigError(
                f"run.match_head: {self.config.match_head} needs a model with contrastive heads, "
                f"which {type(model).__name__} lacks; use itm"
            )
        scores = model.score(batch.samples)
        if self.config.match_head == "itc":
            return {"match": scores["itc"]}
        return {"match": scores["itm"] + scores["itc"]}

    def rows(self, batch: UnitBatch, outputs: dict[str, Tensor]) -> list[tuple[int, dict]]:
        """Return candidates, the data set's fields, `match_scores` and `prediction` of each row."""
        rows = list(batch.rejects)
        values = iter(outputs["match"].float().cpu().tolist() if batch.rows else [])
        for row in batch.rows:
            texts = list(row.all_texts)
            scores = list(itertools.islice(values, len(texts)))
            if all(map(math.isfinite, scores)):
                payload = {"texts": texts, **row.fields, "match_scores": scores}
                payload["prediction"] = int(np.argmax(scores))
            else:
                payload = {"reject": f"score is not a number: {scores}"}
            rows.append((row.index, payload))
        return rows

    def finish(
        self,
        reader: RowReader,
        dataset: RecordDataset,
        output_dir: Path,
        name: str,
        *,
        report: bool = True,
    ) -> dict[str, Any]:
        """Write `result/<name>.json` and `.jsonl`, rejects and summary.

        Returns:
            `accuracy` over rows of several candidates with a label, `pairwise` over those that
            people rated, counts, and `agg_metrics`: the first of the two that there is, else 0.0.
        """
        output_dir = Path(output_dir)
        counts, right, agreement = _write_rows(reader, dataset, output_dir, name)
        metrics: dict[str, Any] = {"agg_metrics": 0.0, **counts}
        if self.config.report_metric:
            found = {}
            if right:
                found["accuracy"] = float(np.mean(right))
            if agreement:
                found["pairwise"] = 100 * float(np.mean(agreement))
            metrics |= found
            metrics["agg_metrics"] = next(iter(found.values()), 0.0)
        if report:
            path = output_dir / f"{split_prefix(name)}summary.json"
            write_atomically(path, json.dumps({"name": name, **metrics}, indent=1) + "\n")
        return metrics


def _write_rows(
    reader: RowReader, dataset: RecordDataset, output_dir: Path, name: str
) -> tuple[Counter[str], list[bool], list[float]]:
    """Write the rows; return their counts, and what each comparable row says about the model."""
    counts: Counter[str] = Counter(rows=0, scored=0, rejected=0)
    right: list[bool] = []
    agreement: list[float] = []
    with ExitStack() as stack:
        result = output_dir / "result"
        array_file = stack.enter_context(AtomicFile(result / f"{name}.json"))
        lines = stack.enter_context(AtomicFile(result / f"{name}.jsonl"))
        path = output_dir / f"{split_prefix(name)}rejects.jsonl"
        rejects = stack.enter_context(AtomicFile(path))
        array = JsonArray(array_file)
        for row, raw in reader.iterate_raw():
            payload = json.loads(raw)
            counts["rows"] += 1
            if "reject" in payload:
                counts["rejected"] += 1
                rejects.write(reject_line(row, payload, dataset))
                continue
            counts["scored"] += 1
            array.write([raw])
            lines.write(raw + b"\n")
            _judge(payload, right, agreement)
        check_complete(name, counts["rows"], dataset)
        array.close()
    return counts, right, agreement


def pairwise_agreement(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Return how well scores order candidates that people rated unequally, from -1 to 1.

    Sherlock's comparison metric for one picture and one rater: pairwise accuracy rescaled by
    `2 (accuracy - 0.5)`, 0 without unequal pairs. The official scorer breaks the model's ties by
    tiny noise; here a tie counts one half, its expectation.

    Args:
        scores: `(C,)` of the model.
        ratings: `(C,)` of one rater.
    """
    rated = np.sign(np.subtract.outer(ratings, ratings))
    ordered = np.sign(np.subtract.outer(scores, scores))
    pairs = rated != 0
    return float((rated * ordered)[pairs].mean()) if pairs.any() else 0.0


def _judge(payload: dict[str, Any], right: list[bool], agreement: list[float]) -> None:
    """Add what a row says about the model to the lists."""
    scores = np.array(payload["match_scores"])
    if len(scores) < 2:
        return
    if payload.get("label") is not None:
        right.append(payload["prediction"] == payload["label"])
    if payload.get("scores") is not None:
        ratings = np.array(payload["scores"], dtype=np.float64)
        raters = ratings if ratings.ndim == 2 else ratings[None]  # (raters, C)
        agreement.append(float(np.mean([pairwise_agreement(scores, one) for one in raters])))
