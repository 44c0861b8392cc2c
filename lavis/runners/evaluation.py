"""The evaluate loop: planned units, each scored once by one rank, journaled, read back in order."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lavis.common.dist import World
from lavis.common.errors import ConfigError, NothingDoneError
from lavis.common.journal import Journal, JournalReader
from lavis.common.logger import Progress
from lavis.runners.identity import WeightDigest, scoring_identity
from lavis.runners.loader import make_loader, to_device
from lavis.runners.precision import autocast, evaluation_dtype
from lavis.runners.watch import WatchedRows

logger = logging.getLogger(__name__)


class Units(Dataset[Any]):
    """Item u is unit u of a plan, loaded; runs in loader processes."""

    def __init__(self, task: Any, dataset: Any, plan: Any) -> None:
        self._task, self._dataset, self._plan = task, dataset, plan

    def __getitem__(self, unit: int) -> Any:
        return self._task.load_unit(self._dataset, self._plan, unit)


class Evaluator:
    """Scores data sets with a task and a model; every rank calls it together.

    Args:
        run: `RunConfig`.
        tree: the resolved config, part of what the journal belongs to.
        folder: the run's output folder.
    """

    def __init__(
        self, *, task: Any, model: nn.Module, world: World, run: Any, tree: Any, folder: Path
    ) -> None:
        self._task, self._model, self._world = task, model, world
        self._run, self._tree, self._folder = run, tree, folder
        self._dtype = evaluation_dtype(run, world.device)
        self._digest = WeightDigest(model)
        self.unscored: list[str] = []  # a sentence for each result without a score

    def run(
        self, dataset: Any, name: str, *, report: bool = True, replace: bool = False
    ) -> dict[str, Any]:
        """Score what the journal lacks and return the metrics, the same on every rank.

        Args:
            dataset: its rows end up in `<folder>/result/<name>.json` and whatever else the task
                writes.
            name: of the result and of the journal.
            report: write reports for readers too.
            replace: discard a journal of other weights or data in place of refusing it.

        Raises:
            ConfigError: the output folder holds scores of another job.
            NothingDoneError: no record could be scored, and that without a report to say so.
        """
        world = self._world
        training = self._model.training
        self._model.eval()
        identity = world.broadcast(self._identity(dataset), f"{name}: identity")
        folder = self._folder / "journal" / name
        plan = self._plan(dataset, folder.with_name(f"{name}.plan.npz"))
        if replace and world.is_main:
            _discard_other(folder, identity)
        world.barrier(f"{name}: journal")
        journal = Journal(folder, identity, world.rank)
        left = [unit for unit in range(len(plan)) if not journal.done(unit)]
        if left:
            # what a task computes ahead is what the model would compute in the loop
            with torch.no_grad(), autocast(world.device, self._dtype):
                self._task.prepare(self._model, dataset, world)
        world.barrier(f"{name}: start")  # nobody writes before everybody has read what is left
        self._score(dataset, plan, journal, name=name, units=left[world.rank :: world.size])
        journal.close()
        world.barrier(f"{name}: every unit scored")
        found: tuple[dict[str, Any], str | None] | None = None
        if world.is_main:
            with JournalReader(folder, identity) as reader:
                rows = WatchedRows(reader)
                metrics = self._task.finish(rows, dataset, self._folder, name, report=report)
                found = metrics, rows.nothing(name)
        self._model.train(training)
        metrics, nothing = world.broadcast(found, f"{name}: metrics")
        if nothing is not None:
            if not report:  # a training would choose its best weights by nothing
                raise NothingDoneError(nothing)
            self.unscored.append(nothing)
        return metrics

    def _identity(self, dataset: Any) -> dict[str, Any] | None:
        if not self._world.is_main:
            return None
        data, weights = dataset.fingerprint(), self._digest()
        return scoring_identity(self._tree, data=data, weights=weights, task=self._task.identity())

    def _plan(self, dataset: Any, path: Path) -> Any:
        """Plan on rank 0, which saves the plan for the others."""
        size = self._run.batch_size_eval
        plan = None
        if self._world.is_main:
            path.parent.mkdir(parents=True, exist_ok=True)
            plan = self._task.plan(dataset, size, path)
        self._world.barrier(f"{path.name}: planned")
        return plan if plan is not None else self._task.plan(dataset, size, path)

    def _score(
        self, dataset: Any, plan: Any, journal: Journal, *, name: str, units: list[int]
    ) -> None:
        world = self._world
        total = len(plan.order)
        mine = sum(len(plan.rows(unit)) for unit in units)
        done = max(0, total - mine * world.size)  # what earlier starts scored, about
        progress = Progress(total, name, unit="records", done=done, shown=world.is_main)
        rejected = 0
        for number, (batch, outputs) in enumerate(self._outputs(dataset, plan, units)):
            rows = self._task.rows(batch, outputs)
            journal.append(batch.unit, rows)
            rejected += sum("reject" in payload for _, payload in rows)
            world.beat(f"{name}: unit {number + 1} of {len(units)}")
            progress.add(min(len(rows) * world.size, total - progress.done))
        progress.close()
        rejected = sum(world.gather(rejected, f"{name}: rejects"))
        if rejected and world.is_main:
            logger.warning("%s: %d of %d records rejected in this start", name, rejected, total)

    def _outputs(
        self, dataset: Any, plan: Any, units: list[int]
    ) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        """Yield each unit and its outputs on the host, one unit late, so that nothing waits."""
        run, device = self._run, self._world.device
        loader = make_loader(
            Units(self._task, dataset, plan), units, num_workers=run.num_workers, device=device
        )
        late: _Copy | None = None
        for batch in loader:
            outputs: dict[str, Tensor] = {}
            if batch.rows:
                batch.samples = to_device(batch.samples, device)
                with torch.no_grad(), autocast(device, self._dtype):
                    outputs = self._task.predict(self._model, batch)
            current = _Copy(batch, outputs)
            if late is not None:
                yield late.take()
            late = current
        if late is not None:
            yield late.take()


class _Copy:
    """Outputs on their way to the host."""

    def __init__(self, batch: Any, outputs: dict[str, Tensor]) -> None:
        for large in ("image", "vision_features"):
            batch.samples.pop(large, None)
        self._batch = batch
        self._outputs = {k: v.to("cpu", non_blocking=True) for k, v in outputs.items()}
        self._event: torch.cuda.Event | None = None
        if any(value.is_cuda for value in outputs.values()):
            self._event = torch.cuda.Event()
            self._event.record()

    def take(self) -> tuple[Any, dict[str, Tensor]]:
        if self._event is not None:
            self._event.synchronize()
        return self._batch, self._outputs


def _discard_other(folder: Path, identity: dict[str, Any]) -> None:
    try:
        JournalReader(folder, identity).close()
    except ConfigError as error:
        logger.info("discarding scores of an earlier run: %s", error)
        shutil.rmtree(folder)
