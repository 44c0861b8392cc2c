"""The evaluate loop: planned units, each scored once by one rank, journaled, read back in order."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lavis.common.config.run import RunConfig
from lavis.common.dist import World
from lavis.common.errors import ConfigError, NothingDoneError
from lavis.common.storage.inputs import Changed
from lavis.common.storage.journal import Finished, Journal, JournalReader, finished
from lavis.common.storage.plan import UnitPlan
from lavis.common.storage.segments import open_segments
from lavis.common.units import (
    UnitResult,
    UnitsLeft,
    changed_inputs,
    run_units,
    units_left,
)
from lavis.datasets.base import RecordDataset
from lavis.runners.contracts import LoadedUnit, RunnerModel, RunnerTask
from lavis.runners.identity import WeightDigest, plan_digest, scoring_identity
from lavis.runners.loader import autocast, evaluation_dtype, make_loader, to_device

logger = logging.getLogger(__name__)

_REJECT = b'{"reject": '  # a payload of `BaseTask.reject` begins so


class Units(Dataset[LoadedUnit]):
    """Item u is unit u of a plan, loaded; runs in loader processes."""

    def __init__(self, task: RunnerTask, dataset: RecordDataset, plan: UnitPlan) -> None:
        self._task, self._dataset, self._plan = task, dataset, plan

    def __getitem__(self, unit: int) -> LoadedUnit:
        return self._task.load_unit(self._dataset, self._plan, unit)


class Evaluator:
    """Scores data sets with a task and a model; every rank calls it together.

    Args:
        tree: the resolved config, part of what the journal belongs to.
        folder: the run's output folder.
    """

    def __init__(
        self,
        *,
        task: RunnerTask,
        model: RunnerModel,
        world: World,
        run: RunConfig,
        tree: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self._task, self._model, self._world = task, model, world
        self._run, self._tree, self._folder = run, tree, folder
        self._dtype = evaluation_dtype(run, world.device)
        self._digest = WeightDigest(model)
        self.unscored: list[str] = []  # a sentence for each result without a score
        self._accepted: dict[str, _Job] = {}

    def run(
        self, dataset: RecordDataset, name: str, *, report: bool = True, replace: bool = False
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
        job = self._accepted.pop(name, None) or self._job(dataset, name, replace=replace)
        path = job.folder.with_name(f"{name}.plan.npz")
        plan = self._plan(dataset, path, job.identity["data"])
        identity = {**job.identity, "plan": plan_digest(plan)}
        left = world.on_main(lambda: _left(job, identity, plan), f"{name}: what is left")
        with ExitStack() as stack:
            if len(left.units):
                stack.enter_context(self._model.scoring(self._folder, world))
                # what a task computes ahead is what the model would compute in the loop
                with torch.no_grad(), autocast(world.device, self._dtype):
                    self._task.prepare(self._model, dataset, world)
            world.barrier(f"{name}: start")
            mine = left.of_rank(world)
            places = list(map(os.path.realpath, _places(dataset)))
            journal = Journal(job.folder, identity, world.rank, start=left.start, places=places)
            self._score(dataset, plan, journal, name=name, units=mine)
            journal.close()
        world.barrier(f"{name}: every unit scored")

        def finish() -> tuple[dict[str, Any], str | None]:
            with JournalReader(job.folder, identity) as reader:
                rows = WatchedRows(reader)
                metrics = self._task.finish(
                    rows, dataset, self._folder, name, report=report, model=self._model
                )
                return metrics, rows.nothing(name)

        metrics, nothing = world.on_main(finish, f"{name}: metrics")
        self._model.train(training)
        if nothing is not None:
            if not report:  # a training would choose its best weights by nothing
                raise NothingDoneError(nothing)
            self.unscored.append(nothing)
        return metrics

    def accept(self, dataset: RecordDataset, name: str) -> None:
        """Refuse what `run` would refuse, before anything is written; weights must stay till then.

        Raises:
            ConfigError: the output folder holds scores of another job.
        """
        self._accepted[name] = self._job(dataset, name)

    def _job(self, dataset: RecordDataset, name: str, *, replace: bool = False) -> _Job:
        """Return the job of the requested scores, and on rank 0 which of them exist."""
        folder = self._folder / "journal" / name
        known: list[_Before] = []

        def look() -> dict[str, Any]:
            identity = self._identity(dataset)
            try:
                known.append(self._before(folder, identity, _places(dataset), name))
            except ConfigError as error:
                if not replace:
                    raise
                logger.info("discarding scores of an earlier run: %s", error)
                shutil.rmtree(folder)
                known.append(_Before(finished(folder, identity), []))
            return identity

        identity = self._world.on_main(look, f"{name}: whose scores")
        return _Job(name, folder, identity, known[0] if known else None)

    def _before(
        self, folder: Path, identity: dict[str, Any], places: list[str], name: str
    ) -> _Before:
        """Read the journal, and compare the files that finished units were made from."""
        before = finished(folder, identity, partly=True)  # the plan is not known yet
        changed = changed_inputs(
            before,
            places,
            folder=folder,
            what="scores",
            beat=lambda: self._world.beat(f"{name}: inputs of finished units"),
        )
        return _Before(before, changed)

    def _identity(self, dataset: RecordDataset) -> dict[str, Any]:
        own = self._model.scoring_identity()
        identity = scoring_identity(
            self._tree if own is None else {**self._tree, "model": own},
            data=dataset.fingerprint(),
            weights=self._digest(),
            task=self._task.identity(),
        )
        return {**identity, "computed_in": str(self._dtype or torch.float32)}

    def _plan(self, dataset: RecordDataset, path: Path, data: Mapping[str, Any]) -> UnitPlan:
        """Plan on rank 0, which saves the plan for the others."""
        size = self._run.batch_size_eval

        made: list[UnitPlan] = []

        def make() -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.append(self._task.plan(dataset, size, path, data))
            return plan_digest(made[0])

        digest = self._world.on_main(make, f"{path.name}: planned")
        plan = made[0] if made else self._task.plan(dataset, size, path, data)
        if plan_digest(plan) != digest:
            raise ConfigError(
                f"{path}: rank {self._world.rank} reads another plan than rank 0 has written; the "
                "folder must be one that all processes share"
            )
        return plan

    def _score(
        self,
        dataset: RecordDataset,
        plan: UnitPlan,
        journal: Journal,
        *,
        name: str,
        units: list[int],
    ) -> None:
        world, total = self._world, len(plan.order)
        rejected = 0

        def results() -> Iterator[UnitResult]:
            nonlocal rejected
            for batch, outputs in self._outputs(dataset, plan, units):
                rows = self._task.rows(batch, outputs)
                rejected += sum("reject" in payload for _, payload in rows)
                yield UnitResult(batch.unit, rows, batch.inputs, batch.again)

        left = sum(len(plan.rows(unit)) for unit in units)
        run_units(results(), journal, world, name=name, units=len(units), left=left, total=total)
        rejected = sum(world.gather(rejected, f"{name}: rejects"))
        if rejected and world.is_main:
            logger.warning("%s: %d of %d records rejected in this start", name, rejected, total)

    def _outputs(
        self, dataset: RecordDataset, plan: UnitPlan, units: list[int]
    ) -> Iterator[tuple[LoadedUnit, dict[str, Tensor]]]:
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

    def __init__(self, batch: LoadedUnit, outputs: dict[str, Tensor]) -> None:
        for large in ("image", "views", "vision_features"):
            batch.samples.pop(large, None)
        self._batch = batch
        self._outputs = {k: v.to("cpu", non_blocking=True) for k, v in outputs.items()}
        self._event: torch.cuda.Event | None = None
        if any(value.is_cuda for value in outputs.values()):
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def take(self) -> tuple[LoadedUnit, dict[str, Tensor]]:
        if self._event is not None:
            self._event.synchronize()
        return self._batch, self._outputs


class WatchedRows:
    """A journal's rows, in data-set order, and whether any of those that passed was scored."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._rows = 0
        self._scored = False
        self._reasons: Counter[str] = Counter()

    def iterate_raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield (row number, the payload's JSON text)."""
        if not self._scored:  # a task may read the rows more than once
            self._rows = 0
            self._reasons.clear()
        for row, raw in self._reader.iterate_raw():
            if not self._scored:
                self._note(raw)
            yield row, raw

    def iterate(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row number, payload)."""
        for row, raw in self.iterate_raw():
            yield row, json.loads(raw)

    def nothing(self, name: str) -> str | None:
        """Return a sentence with the commonest reasons if no row of the result was scored."""
        if self._scored:
            return None
        reasons = ", ".join(f"{why} ({count})" for why, count in self._reasons.most_common(3))
        return f"{name}: none of {self._rows} records could be scored: {reasons}; see rejects.jsonl"

    def _note(self, raw: bytes) -> None:
        self._rows += 1
        if raw.startswith(_REJECT):
            self._reasons[json.loads(raw)["reject"].split(":")[0]] += 1
        else:
            self._scored = True
            self._reasons.clear()


@dataclass(frozen=True)
class _Before:
    """What earlier starts have finished, and which of it is no longer so."""

    finished: Finished
    changed: list[Changed]


@dataclass(frozen=True)
class _Job:
    """Whose scores a journal holds; `identity` lacks the plan, `before` is known to rank 0."""

    name: str
    folder: Path
    identity: dict[str, Any]
    before: _Before | None


def _places(dataset: RecordDataset) -> list[str]:
    return dataset.places() if hasattr(dataset, "places") else []


def _left(job: _Job, identity: dict[str, Any], plan: UnitPlan) -> UnitsLeft:
    """Return the units to do or to do again, on rank 0; `ConfigError` if of another plan."""
    assert job.before is not None, "rank 0 has read the journal"
    open_segments(job.folder, identity)
    before, changed = job.before.finished, job.before.changed
    again, redone = before.again(), [one.unit for one in changed]
    first = changed[0].name if changed else ""
    for units, why in (
        (redone, f"files they are made from changed (first: {first})"),
        (again, "what they are made from could not be read then"),
    ):
        if units:
            rows = sum(len(plan.rows(unit)) for unit in units)
            logger.warning(
                "%s: %d units (%d records) are scored again: %s", job.name, len(units), rows, why
            )
    return units_left(len(plan), before, [*redone, *again])
